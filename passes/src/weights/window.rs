//! Channels whose errors compensate each other: their order, their groups, and what errors cost.

use std::ops::Range;

use super::cholesky::decompose;
use super::hessian::Hessian;
use super::triangle::Upper;
use super::{Method, Order};

/// Channels that are compensated together by one product with those before them, at least one group.
const BLOCK: usize = 128;

/// A window of channels, in the order in which they are quantized.
pub(super) struct Window {
    /// The channel at each position.
    pub channels: Vec<usize>,
    /// E\[x²\] at each position; ones without a Hessian.
    pub moments: Vec<f32>,
    pub blocks: Vec<Block>,
    /// A panel per block. In column j above the diagonal: what an error at each earlier position adds to the target of
    /// position j. None without compensation.
    pub feedback: Option<Upper>,
    /// The damping with which there was a factor; zero without compensation.
    pub damping: f32,
}

/// Neighbouring positions that make whole groups.
pub(super) struct Block {
    pub start: usize,
    pub width: usize,
    /// The index of each group in its row, and its positions, counted from `start`.
    pub groups: Vec<(usize, Range<usize>)>,
    /// By what an error at each position is weighed when scales are compared.
    pub costs: Vec<f32>,
    /// Row j: what an error at each earlier position of the block adds to the target of position j. Empty without compensation.
    pub feedback: Vec<f32>,
}

impl Window {
    /// The window of these channels, which start a group; `moments` has E\[x²\] of all channels.
    pub fn new(
        channels: Range<usize>,
        group: usize,
        method: &Method,
        hessian: Option<&Hessian>,
        moments: &[f32],
    ) -> Self {
        let (start, end) = (channels.start, channels.end);
        let group_at = |c: usize| -> Vec<usize> { (c..(c + group).min(end)).collect() };
        let mut groups: Vec<_> = channels.step_by(group).map(group_at).collect();
        if method.compensate && method.order == Order::ByDiagonal {
            sort(&mut groups, moments);
        }
        let channels = groups.concat();
        let moments: Vec<f32> = channels.iter().map(|c| moments[*c]).collect();
        let mut window = Window {
            blocks: blocks(&groups, group, &moments),
            channels,
            moments,
            feedback: None,
            damping: 0.0,
        };
        if let Some(hessian) = hessian.filter(|_| method.compensate) {
            window.compensate(start, hessian, method.damping);
        }
        window
    }

    /// Finds the feedback; without a factor there is none.
    fn compensate(&mut self, start: usize, hessian: &Hessian, damping: f32) {
        let widths: Vec<usize> = self.blocks.iter().map(|b| b.width).collect();
        let product = hessian.products(start);
        let at = |i: usize, j: usize| product(self.channels[i] - start, self.channels[j] - start);
        let Some(found) = decompose(&widths, damping, &self.moments, at) else { return };
        for (block, panel) in self.blocks.iter_mut().zip(&found.feedback.panels) {
            block.feedback = transposed(panel.diagonal_block(), block.width);
            block.balance_costs(&found.costs[block.start..]);
        }
        (self.feedback, self.damping) = (Some(found.feedback), found.damping);
    }
}

impl Block {
    /// The geometric mean of what an error costs when later channels repair none of it, E\[x²\], and all they can. On
    /// synthetic inputs with many or few outliers it is mostly better for the output than either alone, by 0 to 12 %.
    fn balance_costs(&mut self, repaired: &[f32]) {
        self.costs.iter_mut().zip(repaired).for_each(|(cost, r)| *cost = cost.sqrt() * r.sqrt());
    }
}

/// Channels of a group by falling E\[x²\], and groups by its falling sum: what matters most is rounded while the most
/// channels are left to make up for it.
fn sort(groups: &mut [Vec<usize>], moments: &[f32]) {
    let sum = |group: &Vec<usize>| group.iter().map(|c| moments[*c]).sum::<f32>();
    for group in &mut *groups {
        group.sort_by(|a, b| moments[*b].total_cmp(&moments[*a]));
    }
    groups.sort_by(|a, b| sum(b).total_cmp(&sum(a)));
}

fn blocks(groups: &[Vec<usize>], group: usize, moments: &[f32]) -> Vec<Block> {
    let mut start = 0;
    let block = |groups: &[Vec<usize>]| {
        let mut width = 0;
        let place = |channels: &Vec<usize>| {
            width += channels.len();
            (channels[0] / group, width - channels.len()..width)
        };
        let groups = groups.iter().map(place).collect();
        start += width;
        let costs = moments[start - width..start].to_vec();
        Block { start: start - width, width, groups, costs, feedback: vec![] }
    };
    groups.chunks((BLOCK / group).max(1)).map(block).collect()
}

fn transposed(block: &[f32], n: usize) -> Vec<f32> {
    (0..n * n).map(|i| block[i % n * n + i / n]).collect()
}
