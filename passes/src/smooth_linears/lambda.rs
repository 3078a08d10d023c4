//! λ of a site, and what it follows.

use fireq_ir::{Graph, PassError};

use super::Site;
use crate::pattern::numbers;
use crate::smooth::Bench;

impl Site {
    /// The sum and the largest of the magnitudes of each input channel.
    pub(super) fn sizes(&self, bench: &Bench) -> Result<(Vec<f64>, Vec<f32>), PassError> {
        let channels = bench.graph.ty(self.x).shape.cols().fixed().unwrap_or(0);
        let (mut sums, mut most) = (vec![0.0f64; channels], vec![0.0f32; channels]);
        for row in bench.rows(self.x)?.chunks(channels.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(x.abs()));
            most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(x.abs()));
        }
        Ok((sums, most))
    }

    /// The largest magnitude in each column of the weights.
    pub(super) fn columns(&self, graph: &Graph) -> Vec<f32> {
        let mut largest = vec![0.0f32; graph.ty(self.x).shape.cols().fixed().unwrap_or(0)];
        for linear in &self.linears {
            let weight = numbers(graph, graph.operands(*linear)[1]).unwrap_or_default();
            for row in weight.chunks(largest.len().max(1)) {
                largest.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
            }
        }
        largest
    }

    /// `mean|x|^α / max|w|^(1−α)` in units of its geometric mean; 1 where a channel has no inputs or no weights.
    pub(super) fn lambda(&self, means: &[f64], columns: &[f32], alpha: f32) -> Vec<f32> {
        let alpha = f64::from(alpha);
        let log = |(mean, column): (&f64, &f32)| {
            let log = alpha * mean.ln() - (1.0 - alpha) * f64::from(*column).ln();
            (*mean > 0.0 && *column > 0.0).then_some(log)
        };
        let mut logs: Vec<Option<f64>> = means.iter().zip(columns).map(log).collect();
        if let Some((head, repeats)) = self.heads {
            logs.chunks_mut(head * repeats).for_each(|group| share(group, head));
        }
        let known: Vec<f64> = logs.iter().flatten().copied().collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        logs.iter().map(|log| log.map_or(1.0, |log| (log - mean).exp() as f32)).collect()
    }
}

/// The mean over query heads of each channel, in all of them.
fn share(group: &mut [Option<f64>], head: usize) {
    for channel in 0..head {
        let of: Vec<f64> = group.iter().skip(channel).step_by(head).flatten().copied().collect();
        let mean = (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64);
        group.iter_mut().skip(channel).step_by(head).for_each(|log| *log = mean);
    }
}
