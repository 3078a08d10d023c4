//! Smoothing: scales that change no number, put where they make numbers easier to round. Which ones is searched on
//! calibration data, by the error that quantization then makes.

pub(crate) mod key_site;
pub(crate) mod keys;
pub(crate) mod linears;
pub(crate) mod paper;
pub(crate) mod sample;
pub(crate) mod size;

use fireq_ir::interp::Tensor;
use fireq_ir::{Graph, Moved, PassError, Patch, Pipeline, ValueId};

use crate::calibration::{Calibration, RunError};
use crate::piece::Piece;

/// The share of the error that a scale must take away: less than that is noise of the data.
const WORTH: f64 = 0.03;

/// Sequences that candidates are compared on.
pub const COMPARED: usize = 4;

/// A piece of a graph on calibration data: what candidates are tried on.
pub(crate) struct Bench {
    calibration: Calibration,
    pub graph: Graph,
    /// Every output of the piece as it is, on each sequence.
    reference: Vec<Vec<Tensor>>,
    /// What candidates go through before their error is taken.
    quantize: Pipeline,
}

impl Bench {
    /// A piece of `whole`, on data that `calibration` has for the whole, and the pipeline that quantizes it.
    pub fn new(
        calibration: &Calibration,
        whole: &Graph,
        piece: Piece,
        quantize: &str,
    ) -> Result<Self, RunError> {
        let calibration = calibration.on(calibration.inputs_of(whole, &piece, COMPARED)?);
        let quantize = crate::pipeline(quantize).expect("a pipeline of known passes");
        let mut bench = Bench { calibration, graph: piece.graph, reference: vec![], quantize };
        bench.reference = bench.calibration.values(&bench.graph, &bench.graph.outputs, COMPARED)?;
        Ok(bench)
    }

    /// The rows of a value of the piece on all sequences.
    pub fn rows(&self, value: ValueId) -> Result<Vec<f32>, RunError> {
        let mut all = vec![];
        self.calibration.observe(&self.graph, &[value], COMPARED, |_, tensor| all.extend(tensor.to_f32()))?;
        Ok(all)
    }

    /// The relative L2 error of the outputs on the first `most` sequences, all outputs counting the same, once the piece is
    /// patched and quantized.
    pub fn error(&self, patch: Option<Patch>, most: usize) -> Result<f64, PassError> {
        let mut candidate = self.graph.clone();
        if let Some(patch) = patch {
            candidate.apply(patch, &mut Moved::new())?;
        }
        self.quantize.run(&mut candidate).map_err(|failed| failed.source)?;
        let found = self.calibration.values(&candidate, &candidate.outputs, most)?;
        let errors = self.reference.iter().zip(&found).map(|(reference, found)| relative(reference, found));
        Ok((errors.sum::<f64>() / found.len().max(1) as f64).sqrt())
    }
}

/// The squared relative L2 error over all sequences.
fn relative(reference: &[Tensor], found: &[Tensor]) -> f64 {
    let (mut off, mut norm) = (0.0, 0.0);
    for (a, b) in reference.iter().zip(found) {
        for (a, b) in a.to_f32().iter().zip(b.to_f32()) {
            off += (f64::from(*a) - f64::from(b)).powi(2);
            norm += f64::from(*a).powi(2);
        }
    }
    off / f64::max(norm, f64::MIN_POSITIVE)
}

/// Candidates that are compared on all sequences: the best of all on the first.
const FINALISTS: usize = 3;

/// The candidate of the least error, with that error. `error` takes a candidate and a number of sequences.
pub(crate) fn best<C>(
    candidates: Vec<C>,
    error: impl Fn(&C, usize) -> Result<f64, PassError>,
) -> Result<Option<(f64, C)>, PassError> {
    let mut candidates = ranked(candidates, |one| error(one, 1))?;
    candidates.truncate(FINALISTS);
    let candidates = candidates.into_iter().map(|(_, one)| one).collect();
    Ok(ranked(candidates, |one| error(one, COMPARED))?.into_iter().next())
}

/// Candidates by rising error; of equal ones the first comes first.
fn ranked<C>(
    candidates: Vec<C>,
    error: impl Fn(&C) -> Result<f64, PassError>,
) -> Result<Vec<(f64, C)>, PassError> {
    let judged = candidates.into_iter().map(|one| Ok((error(&one)?, one)));
    let mut judged = judged.collect::<Result<Vec<_>, PassError>>()?;
    judged.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    Ok(judged)
}

/// True where the error falls by enough to be no noise.
pub(crate) fn worth(before: f64, after: f64) -> bool {
    after < before * (1.0 - WORTH)
}
