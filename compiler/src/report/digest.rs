//! A report in a few numbers.

use super::{Block, Report};

impl Report {
    /// The geometric mean over blocks of their error in units of round to nearest's.
    pub fn gain(&self) -> Option<f64> {
        let ratio =
            |block: &Block| Some(block.error / block.error_rtn?).filter(|r| *r > 0.0 && r.is_finite());
        let logs: Vec<f64> = self.blocks.iter().filter_map(ratio).map(f64::ln).collect();
        (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    }

    /// The block of the largest error, among those that were measured; what is no number is larger than all.
    pub fn worst(&self) -> Option<&Block> {
        let size = |block: &&Block| if block.error.is_nan() { f64::INFINITY } else { block.error };
        let measured = self.blocks.iter().filter(|block| measured(block));
        // The first of equals.
        measured.rev().max_by(|a, b| size(a).total_cmp(&size(b)))
    }

    /// Sites that were smoothed, of those that were searched.
    pub fn smoothed(&self) -> (usize, usize) {
        let sites = || self.blocks.iter().flat_map(|block| &block.smoothing);
        (sites().filter(|site| site.form != "off").count(), sites().count())
    }

    /// Each reason to leave sites alone, with the sites.
    pub fn refused(&self) -> Vec<(&str, Vec<&str>)> {
        let mut found: Vec<(&str, Vec<&str>)> = vec![];
        for refused in self.blocks.iter().flat_map(|block| &block.refused) {
            match found.iter_mut().find(|(reason, _)| *reason == refused.reason) {
                Some((_, sites)) => sites.push(&refused.site),
                None => found.push((&refused.reason, vec![&refused.site])),
            }
        }
        found
    }
}

/// A block that stands for the model as a whole has notes, and no error.
fn measured(block: &Block) -> bool {
    !block.error.is_nan() || block.error_rtn.is_some() || block.stream_error.is_some()
}

/// The name of a weight as it is read: `model.layers.3.mlp.up_proj.weight` is `3.mlp.up_proj`.
///
/// ```
/// use fireq::report::{part, short};
///
/// assert_eq!(short("model.layers.3.mlp.up_proj.weight"), "3.mlp.up_proj");
/// assert_eq!(part("model.layers.3.mlp.up_proj.weight"), "3.mlp");
/// assert_eq!((short("k.0"), part("k.0")), ("k.0", "k.0"));
/// ```
pub fn short(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.strip_prefix("layers.").unwrap_or(name)
}

/// The part of the model that a weight belongs to, which is how the block that it is the first weight of is called:
/// `3.mlp`. Other names are as [`short`] has them.
pub fn part(name: &str) -> &str {
    let part = short(name).rsplit_once('.').filter(|_| name.ends_with(".weight"));
    part.map_or_else(|| short(name), |(part, _)| part)
}

#[cfg(test)]
mod tests {
    use super::super::{Refused, Smoothing};
    use super::*;

    fn report(errors: &[(f64, Option<f64>)]) -> Report {
        let block = |(n, (error, error_rtn)): (usize, &(f64, Option<f64>))| Block {
            name: n.to_string(),
            error: *error,
            error_rtn: *error_rtn,
            ..Block::default()
        };
        Report { blocks: errors.iter().enumerate().map(block).collect(), ..Report::default() }
    }

    #[test]
    fn gains_are_averaged_as_factors_and_blocks_without_a_factor_do_not_count() {
        let some = report(&[(0.1, Some(0.4)), (0.4, Some(0.1)), (0.1, Some(0.8))]);
        assert!((some.gain().unwrap() - 0.5).abs() < 1e-12);
        let odd = report(&[
            (0.0, Some(0.4)),
            (0.2, None),
            (f64::NAN, Some(0.1)),
            (0.1, Some(0.0)),
            (0.1, Some(0.2)),
        ]);
        assert_eq!(odd.gain(), Some(0.5));
        assert_eq!(report(&[(0.2, None)]).gain(), None);
    }

    #[test]
    fn the_worst_block_is_the_first_of_the_largest_error_or_of_none() {
        let worst = |errors: &[(f64, Option<f64>)]| report(errors).worst().map(|block| block.name.clone());
        assert_eq!(worst(&[(0.1, None), (0.3, None), (0.3, None), (0.2, None)]).unwrap(), "1");
        assert_eq!(worst(&[(0.1, None), (f64::NAN, Some(0.1)), (9.0, None)]).unwrap(), "1");
        assert_eq!(worst(&[(f64::NAN, None)]), None, "it was not measured");
        assert_eq!(worst(&[]), None);
    }

    #[test]
    fn sites_are_counted_and_grouped_by_reason() {
        let mut report = report(&[(0.1, None), (0.1, None)]);
        let refused = |site: &str, reason: &str| Refused { site: site.into(), reason: reason.into() };
        report.blocks[0].refused = vec![refused("k.0", "wide"), refused("q", "shared")];
        report.blocks[1].refused = vec![refused("k.1", "wide")];
        let site = |form: &str| Smoothing { form: form.into(), ..Smoothing::default() };
        report.blocks[1].smoothing = vec![site("off"), site("rms"), site("off")];
        assert_eq!(report.refused(), [("wide", vec!["k.0", "k.1"]), ("shared", vec!["q"])]);
        assert_eq!(report.smoothed(), (1, 3));
    }
}
