//! How large a channel is: one number for its magnitudes in all rows.

/// A measure of magnitudes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// The largest.
    Largest,
    /// One that 1 % of all exceed: what a few tokens do does not count.
    Percentile99,
    /// The root of the mean square.
    Rms,
    /// The mean.
    Mean,
}

impl Size {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Size::Largest => "largest",
            Size::Percentile99 => "99th percentile",
            Size::Rms => "rms",
            Size::Mean => "mean",
        }
    }

    /// The size of each of the `channels` of some rows; zero without rows.
    pub fn of(self, rows: &[f32], channels: usize) -> Vec<f32> {
        let count = (rows.len() / channels.max(1)).max(1) as f64;
        match self {
            Size::Largest => fold(rows, channels, f64::max, |most| most),
            Size::Percentile99 => percentiles(rows, channels),
            Size::Rms => fold(rows, channels, |sum, x| sum + x * x, |sum| (sum / count).sqrt()),
            Size::Mean => fold(rows, channels, |sum, x| sum + x, |sum| sum / count),
        }
    }
}

fn fold(rows: &[f32], channels: usize, add: impl Fn(f64, f64) -> f64, end: impl Fn(f64) -> f64) -> Vec<f32> {
    let mut sums = vec![0.0f64; channels];
    for row in rows.chunks(channels.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum = add(*sum, f64::from(x.abs())));
    }
    sums.into_iter().map(|sum| end(sum) as f32).collect()
}

fn percentiles(rows: &[f32], channels: usize) -> Vec<f32> {
    let of = |channel: usize| {
        let mut sizes: Vec<f32> =
            rows.iter().skip(channel).step_by(channels.max(1)).map(|x| x.abs()).collect();
        let at = sizes.len().saturating_sub(1 + sizes.len() / 100);
        if sizes.is_empty() { 0.0 } else { *sizes.select_nth_unstable_by(at, f32::total_cmp).1 }
    };
    (0..channels).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_of_a_channel_and_ignores_signs() {
        let rows = [3.0, 1.0, -4.0, 1.0];
        assert_eq!(Size::Largest.of(&rows, 2), [4.0, 1.0]);
        assert_eq!(Size::Mean.of(&rows, 2), [3.5, 1.0]);
        assert_eq!(Size::Rms.of(&rows, 2), [12.5f32.sqrt(), 1.0]);
        assert_eq!(Size::Percentile99.of(&rows, 2), [4.0, 1.0]);
        assert_eq!(Size::Percentile99.of(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn one_of_a_hundred_does_not_reach_the_percentile() {
        let mut rows: Vec<f32> = (0..200).map(|n| n as f32 / 200.0).collect();
        rows[7] = -50.0;
        assert_eq!(Size::Percentile99.of(&rows, 1), [0.99]);
    }
}
