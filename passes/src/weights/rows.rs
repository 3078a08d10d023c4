//! Quantizes some rows of a window, block by block.

use super::gemm::{View, add_product};
use super::lanes::LANES;
use super::search::Candidates;
use super::strip::Strip;
use super::window::{Block, Window};
use super::{Method, Rounding};

/// Rows of one task: a multiple of [`LANES`], and enough of them to pay for packing the factor.
pub(super) const ROWS: usize = 256;

/// Some rows of all channels, and where their codes and scales go, row by row.
pub(super) struct Rows<'a> {
    pub weights: &'a [f32],
    pub outer: &'a [f32],
    pub codes: &'a mut [i8],
    pub scales: &'a mut [f32],
}

/// What happened to some rows.
pub(super) struct Tally {
    /// Σ E\[x²\] (w − ŵ)².
    pub errors: f64,
    /// Σ E\[x²\] w².
    pub squares: f64,
    /// How many groups took each clip ratio.
    pub clips: Vec<usize>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(method: &Method) -> Self {
        Tally { errors: 0.0, squares: 0.0, clips: vec![0; method.clips.len()] }
    }

    /// The sum of both.
    pub fn plus(mut self, other: &Tally) -> Self {
        self.errors += other.errors;
        self.squares += other.squares;
        self.clips.iter_mut().zip(&other.clips).for_each(|(a, b)| *a += b);
        self
    }
}

impl Rows<'_> {
    /// Quantizes the window's channels.
    pub fn quantize(&mut self, window: &Window, method: &Method) -> Tally {
        let candidates = Candidates::new(method);
        let lanes = self.outer.len().next_multiple_of(LANES);
        let mut rest = self.in_units(&window.channels, lanes);
        let mut tally = Tally::new(method);
        tally.squares = self.weighted(&rest, &window.moments, lanes);
        for (index, block) in window.blocks.iter().enumerate() {
            let (done, open) = rest.split_at_mut(block.start * lanes);
            let open = &mut open[..block.width * lanes];
            let targets = targets(window, index, done, open, lanes);
            for first in (0..lanes).step_by(LANES) {
                let strip = run(block, &candidates, method.rounding, &targets, open, lanes, first);
                self.store(&strip, block, &window.channels[block.start..], first, &mut tally.clips);
            }
        }
        tally.errors = self.weighted(&rest, &window.moments, lanes);
        tally
    }

    /// By position, then row, of which zeros make `lanes`: a weight in units of its row's outer scale.
    fn in_units(&self, channels: &[usize], lanes: usize) -> Vec<f32> {
        let cols = self.weights.len() / self.outer.len();
        let mut units = vec![0.0; channels.len() * lanes];
        let strips = self.weights.chunks(LANES * cols).zip(self.outer.chunks(LANES));
        for (first, (weights, outer)) in (0..lanes).step_by(LANES).zip(strips) {
            for (values, channel) in units.chunks_exact_mut(lanes).zip(channels) {
                let weights = weights[*channel..].iter().step_by(cols);
                values[first..]
                    .iter_mut()
                    .zip(weights.zip(outer))
                    .for_each(|(to, (w, outer))| *to = w / outer);
            }
        }
        units
    }

    /// Writes the codes and scales of a strip of rows, as far as there are rows, and counts the clip ratios.
    fn store(&mut self, strip: &Strip, block: &Block, channels: &[usize], first: usize, clips: &mut [usize]) {
        let rows = self.outer.len();
        let (cols, groups) = (self.codes.len() / rows, self.scales.len() / rows);
        for lane in 0..LANES.min(rows - first) {
            let row = first + lane;
            let codes = &mut self.codes[row * cols..][..cols];
            strip.codes.iter().zip(channels).for_each(|(code, channel)| codes[*channel] = code[lane] as i8);
            for ((group, _), choice) in block.groups.iter().zip(&strip.choices) {
                self.scales[row * groups + group] = choice.scale[lane];
                if let Some(count) = clips.get_mut(choice.clip[lane]) {
                    *count += 1;
                }
            }
        }
    }

    /// Σ moment · value² of numbers in units of the outer scales.
    fn weighted(&self, values: &[f32], moments: &[f32], lanes: usize) -> f64 {
        let mut sums = vec![0.0f64; lanes];
        for (values, moment) in values.chunks_exact(lanes).zip(moments) {
            let moment = f64::from(*moment);
            sums.iter_mut().zip(values).for_each(|(s, v)| *s += moment * f64::from(*v) * f64::from(*v));
        }
        sums.iter().zip(self.outer).map(|(sum, outer)| sum * f64::from(*outer).powi(2)).sum()
    }
}

/// What a block's codes should stand for: its weights, and what the errors of all blocks before add to them.
fn targets(window: &Window, index: usize, errors: &[f32], weights: &[f32], lanes: usize) -> Vec<f32> {
    let mut targets = weights.to_vec();
    if let Some(feedback) = &window.feedback {
        let before = window.blocks[index].start;
        let factors = feedback.panels[index].rows(0, before).transposed();
        add_product(&mut targets, 1.0, factors, View::new(errors, before, lanes, lanes));
    }
    targets
}

/// Quantizes a strip of rows and leaves their errors where their weights were.
fn run(
    block: &Block,
    candidates: &Candidates,
    rounding: Rounding,
    targets: &[f32],
    weights: &mut [f32],
    lanes: usize,
    first: usize,
) -> Strip {
    let mut strip = Strip::gather(targets, weights, lanes, first);
    strip.quantize(block, candidates, rounding);
    strip.scatter(weights, lanes, first);
    strip
}
