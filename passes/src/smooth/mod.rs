//! Smoothing: scales that change no number, put where they make numbers easier to round. Which ones is searched on
//! calibration data, by the error that quantization then makes.

pub(crate) mod keys;
pub(crate) mod paper;

use fireq_ir::{Graph, Moved, PassError, Patch, Pipeline, ValueId};

use crate::calibration::Calibration;

/// The share of the error that a scale must take away: less than that is noise of the data.
const WORTH: f64 = 0.03;

/// Sequences that candidates are compared on.
const COMPARED: usize = 8;

/// A value that candidates are judged by, and its rows on the graph as it is.
pub(crate) struct Judged<'a> {
    calibration: &'a Calibration,
    graph: &'a Graph,
    value: ValueId,
    reference: Vec<f32>,
    /// What candidates go through before their error is taken.
    quantize: Pipeline,
}

impl<'a> Judged<'a> {
    pub fn new(
        calibration: &'a Calibration,
        graph: &'a Graph,
        value: ValueId,
        quantize: &str,
    ) -> Result<Self, PassError> {
        let reference = rows(calibration, graph, value)?;
        let quantize = crate::pipeline(quantize).expect("a pipeline of known passes");
        Ok(Judged { calibration, graph, value, reference, quantize })
    }

    /// The relative L2 error of the value once the graph is patched and quantized.
    pub fn error(&self, patch: Option<Patch>) -> Result<f64, PassError> {
        let mut candidate = self.graph.clone();
        candidate.outputs = vec![self.value];
        if let Some(patch) = patch {
            candidate.apply(patch, &mut Moved::new())?;
        }
        self.quantize.run(&mut candidate).map_err(|failed| failed.source)?;
        error(self.calibration, &self.reference, &candidate)
    }
}

/// The relative L2 error of a candidate's output against `reference`.
fn error(calibration: &Calibration, reference: &[f32], candidate: &Graph) -> Result<f64, PassError> {
    let (mut off, mut norm, mut at) = (0.0, 0.0, 0);
    calibration.observe(candidate, &candidate.outputs, COMPARED, |_, tensor| {
        let found = tensor.to_f32();
        for (a, b) in reference[at..].iter().zip(&found) {
            off += (f64::from(*a) - f64::from(*b)).powi(2);
            norm += f64::from(*a).powi(2);
        }
        at += found.len();
    })?;
    Ok((off / f64::max(norm, f64::MIN_POSITIVE)).sqrt())
}

/// The rows of a value on the sequences that candidates are compared on, one after another.
pub(crate) fn rows(calibration: &Calibration, graph: &Graph, value: ValueId) -> Result<Vec<f32>, PassError> {
    let mut all = vec![];
    calibration.observe(graph, &[value], COMPARED, |_, tensor| all.extend(tensor.to_f32()))?;
    Ok(all)
}

/// The candidate of the least error, with that error, where it is worth having instead of an error of `before`.
pub(crate) fn best<C>(
    before: f64,
    candidates: impl IntoIterator<Item = C>,
    error: impl Fn(&C) -> Result<f64, PassError>,
) -> Result<Option<(f64, C)>, PassError> {
    let mut best: Option<(f64, C)> = None;
    for candidate in candidates {
        let found = error(&candidate)?;
        if best.as_ref().is_none_or(|(least, _)| found < *least) {
            best = Some((found, candidate));
        }
    }
    Ok(best.filter(|(after, _)| *after < before * (1.0 - WORTH)))
}
