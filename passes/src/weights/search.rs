//! The scale of a group, and the codes under it, for [`LANES`] rows at once.
#![expect(clippy::inline_always, reason = "the caller decides for which vectors these are compiled")]

use fireq_ir::e4m3;

use super::lanes::{LANES, Lane, rn8, round};
use super::{Method, Rounding};

/// A group of some rows, in units of their outer scales, channel by channel.
pub(super) struct Group<'a> {
    /// What the codes should stand for: the weights, with what the errors of earlier groups add to them.
    pub targets: &'a [Lane],
    /// What an error of each channel costs.
    pub costs: &'a [f32],
    /// `feedback[j · stride + i]`: what an error of channel i, before j, adds to the target of j. Empty without compensation.
    pub feedback: &'a [f32],
    /// Between the rows of `feedback`.
    pub stride: usize,
    pub rounding: Rounding,
}

/// What was chosen for a group.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub scale: Lane,
    /// Which of the method's clip ratios each row took.
    pub clip: [usize; LANES],
}

/// A way to get a scale from a group's extreme: what the clip ratio leaves of it has the code `level`.
#[derive(Clone, Copy)]
struct Candidate {
    clip: usize,
    ratio: f32,
    level: f32,
}

/// The scales that a method tries, in order of preference.
pub(super) struct Candidates {
    signed: bool,
    all: Vec<Candidate>,
}

impl Candidates {
    /// One scale for a single ratio; with several, both signs of each if scales may be negative.
    pub fn new(method: &Method) -> Self {
        let levels: &[f32] = match (method.signed, method.clips.len()) {
            (false, _) => &[7.0],
            (true, 0 | 1) => &[-8.0],
            (true, _) => &[-8.0, 7.0],
        };
        let ratios = if method.clips.is_empty() { &[1.0][..] } else { &method.clips };
        let of_ratio = |(clip, ratio): (usize, &f32)| {
            let ratio = *ratio;
            levels.iter().map(move |level| Candidate { clip, ratio, level: *level })
        };
        Candidates { signed: method.signed, all: ratios.iter().enumerate().flat_map(of_ratio).collect() }
    }
}

impl Candidate {
    #[inline(always)]
    fn scale(self, extremes: &Lane) -> Lane {
        let top = e4m3::MAX / self.level.abs();
        extremes.map(|x| rn8((x * self.ratio / self.level).clamp(-top, top)))
    }
}

impl Group<'_> {
    /// The scale with the least cost among the candidates, the first of equals.
    #[inline(always)]
    pub fn choose(&self, candidates: &Candidates) -> Choice {
        let extremes = extremes(self.targets, candidates.signed);
        let (first, others) = candidates.all.split_first().expect("there is a candidate for each ratio");
        let mut best = Choice { scale: first.scale(&extremes), clip: [first.clip; LANES] };
        if others.is_empty() {
            return best;
        }
        let mut least = self.cost(&best.scale);
        for other in others {
            let scale = other.scale(&extremes);
            best.take_cheaper(&mut least, other.clip, &scale, &self.cost(&scale));
        }
        best
    }

    /// What the errors of the group under a scale cost. Feedback inside the group is left out: it is many times the
    /// work, and the scales that it finds are no better.
    #[inline(always)]
    fn cost(&self, scale: &Lane) -> Lane {
        let mut sum = [0.0; LANES];
        for (targets, cost) in self.targets.iter().zip(self.costs) {
            for l in 0..LANES {
                let error = targets[l] - round(targets[l], scale[l], self.rounding).1;
                sum[l] += cost * error * error;
            }
        }
        sum
    }

    /// Rounds channel by channel, each with the feedback of those before. `errors` holds weights, and then by how much
    /// they were missed.
    #[inline(always)]
    pub fn round(&self, scale: &Lane, errors: &mut [Lane], codes: &mut [Lane]) {
        for j in 0..self.targets.len() {
            let mut target = self.targets[j];
            add_feedback(&mut target, errors, self.feedback.get(j * self.stride..j * self.stride + j));
            for l in 0..LANES {
                let (code, value) = round(target[l], scale[l], self.rounding);
                codes[j][l] = code;
                errors[j][l] -= value;
            }
        }
    }
}

impl Choice {
    #[inline(always)]
    fn take_cheaper(&mut self, least: &mut Lane, clip: usize, scale: &Lane, cost: &Lane) {
        for l in 0..LANES {
            let cheaper = cost[l] < least[l];
            least[l] = if cheaper { cost[l] } else { least[l] };
            self.scale[l] = if cheaper { scale[l] } else { self.scale[l] };
            self.clip[l] = if cheaper { clip } else { self.clip[l] };
        }
    }
}

/// Adds to a target what the errors of earlier channels ask of it, one factor each.
#[inline(always)]
pub(super) fn add_feedback(target: &mut Lane, errors: &[Lane], factors: Option<&[f32]>) {
    for (error, factor) in errors.iter().zip(factors.unwrap_or(&[])) {
        (0..LANES).for_each(|l| target[l] += error[l] * factor);
    }
}

/// The number of largest magnitude of each row, the first of equals; its magnitude if signs do not count.
#[inline(always)]
fn extremes(values: &[Lane], signed: bool) -> Lane {
    let mut found = [0.0f32; LANES];
    for v in values {
        (0..LANES).for_each(|l| found[l] = if v[l].abs() > found[l].abs() { v[l] } else { found[l] });
    }
    if signed { found } else { found.map(f32::abs) }
}
