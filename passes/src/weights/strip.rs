//! A few rows of a block: gathered, quantized group by group, and put back.

use super::Rounding;
use super::lanes::{LANES, Lane};
use super::search::{Candidates, Choice, Group, add_feedback};
use super::window::Block;

/// [`LANES`] rows of a block, channel by channel.
pub(super) struct Strip {
    targets: Vec<Lane>,
    errors: Vec<Lane>,
    /// The codes, as numbers.
    pub codes: Vec<Lane>,
    /// What was chosen for each group.
    pub choices: Vec<Choice>,
}

impl Strip {
    /// The rows from `first` on, of `lanes` rows of targets and weights.
    pub fn gather(targets: &[f32], weights: &[f32], lanes: usize, first: usize) -> Self {
        let load = |from: &[f32]| -> Vec<Lane> {
            from.chunks_exact(lanes).map(|rows| std::array::from_fn(|l| rows[first + l])).collect()
        };
        let (targets, errors) = (load(targets), load(weights));
        Strip { codes: vec![[0.0; LANES]; errors.len()], choices: vec![], targets, errors }
    }

    /// Puts the errors where the weights were.
    pub fn scatter(&self, errors: &mut [f32], lanes: usize, first: usize) {
        for (to, from) in errors.chunks_exact_mut(lanes).zip(&self.errors) {
            to[first..first + LANES].copy_from_slice(from);
        }
    }

    /// Finds scales and codes. Every machine gets the same bits, some of them sooner.
    pub fn quantize(&mut self, block: &Block, candidates: &Candidates, rounding: Rounding) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: this machine has what the function was compiled for.
            return unsafe { self.quantize_avx2(block, candidates, rounding) };
        }
        self.quantize_groups(block, candidates, rounding);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn quantize_avx2(&mut self, block: &Block, candidates: &Candidates, rounding: Rounding) {
        self.quantize_groups(block, candidates, rounding);
    }

    #[expect(clippy::inline_always, reason = "compiled for the vectors of each caller")]
    #[inline(always)]
    fn quantize_groups(&mut self, block: &Block, candidates: &Candidates, rounding: Rounding) {
        let stride = block.width;
        for (_, positions) in &block.groups {
            let (before, errors) = self.errors.split_at_mut(positions.start);
            for j in positions.clone() {
                let factors = block.feedback.get(j * stride..j * stride + positions.start);
                add_feedback(&mut self.targets[j], before, factors);
            }
            let targets = &self.targets[positions.clone()];
            let costs = &block.costs[positions.clone()];
            let feedback = block.feedback.get(positions.start * (stride + 1)..).unwrap_or(&[]);
            let group = Group { targets, costs, feedback, stride, rounding };
            let choice = group.choose(candidates);
            group.round(&choice.scale, errors, &mut self.codes[positions.clone()]);
            self.choices.push(choice);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::Method;
    use super::*;

    #[test]
    fn wider_vectors_give_the_same_bits() {
        let numbers =
            |n: usize, scale: f32| (0..n).map(|i| ((i * i) as f32 * 0.37).sin() * scale).collect::<Vec<_>>();
        let block = Block {
            start: 0,
            width: 48,
            groups: vec![(0, 0..32), (1, 32..48)],
            costs: numbers(48, 0.5).iter().map(|v| v + 1.0).collect(),
            feedback: numbers(48 * 48, 0.1),
        };
        let (targets, method) = (numbers(48 * LANES, 200.0), Method::compensated());
        let strip = || Strip::gather(&targets, &targets, LANES, 0);
        let (mut here, mut anywhere) = (strip(), strip());
        here.quantize(&block, &Candidates::new(&method), method.rounding);
        anywhere.quantize_groups(&block, &Candidates::new(&method), method.rounding);
        assert_eq!((&here.codes, &here.errors), (&anywhere.codes, &anywhere.errors));
        assert!(here.codes.iter().flatten().any(|code| *code != 0.0));
    }
}
