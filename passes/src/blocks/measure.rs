//! What passes did to a block, in numbers.

use fireq_ir::interp::Tensor;
use fireq_ir::quant::Quantized;
use fireq_ir::{Fit, Format, Graph, Op, PassError, ValueId};

use super::piece::Block;
use super::stream::{Stream, only};
use crate::calibration::{Calibration, RunError};
use crate::findings::Kv;

/// Notes errors of a block on the first sequence, on which the stream was `was` before it and is now behind it.
pub(super) fn measure(
    calibration: &Calibration,
    block: &Block,
    after: &Graph,
    (was, now): (&Tensor, &Stream),
) -> Result<(), PassError> {
    let first = calibration.on(vec![now.inputs_with(block, 0, was)]);
    let exact = only(&first, &block.graph)?;
    let mut nearest = block.graph.clone();
    let rtn = crate::pipeline("rtn").expect("a named pipeline");
    rtn.run(&mut nearest).map_err(|failed| failed.source)?;
    let nearest = only(&first, &nearest)?;
    let kv = kv(&first, after)?;
    calibration.note(|findings| {
        findings.error = error(&exact, &now.x[0], Some(was));
        findings.error_rtn = Some(error(&exact, &nearest, Some(was)));
        findings.stream_error = Some(error(&now.unchanged[0], &now.x[0], None));
        findings.kv = kv;
    });
    Ok(())
}

/// The relative L2 error of `found`, in units of what `exact` adds to a stream.
fn error(exact: &Tensor, found: &Tensor, stream: Option<&Tensor>) -> f64 {
    let (exact, found) = (exact.to_f32(), found.to_f32());
    let start = stream.map_or_else(|| vec![0.0; exact.len()], Tensor::to_f32);
    let square = |a: &f32, b: &f32| (f64::from(*a) - f64::from(*b)).powi(2);
    let sum = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| square(a, b)).sum() };
    (sum(&exact, &found) / f64::max(sum(&exact, &start), f64::MIN_POSITIVE)).sqrt()
}

/// Errors of the keys and values that a block appends to quantized caches.
fn kv(calibration: &Calibration, after: &Graph) -> Result<Option<Kv>, RunError> {
    let attention = |v: ValueId| {
        let [_, k, v] = *after.operands(v).get(..3)? else { return None };
        Some((appended(after, k)?, appended(after, v)?))
    };
    let attentions = after.schedule().into_iter().filter(|v| matches!(after.op(*v), Op::Attention { .. }));
    let Some(((k, to, fit), (v, ..))) = attentions.into_iter().find_map(attention) else { return Ok(None) };
    let mut errors = [0.0; 2];
    calibration.observe(after, &[k, v], 1, |at, rows| {
        let codes = Quantized::from_rows(&rows.to_f32(), rows.cols(), &to, fit);
        errors[at] = error(rows, &Tensor::from_rows(codes.dequantize(), rows.cols()), None);
    })?;
    Ok(Some(Kv { fit: fit.name().into(), key_error: errors[0], value_error: errors[1] }))
}

/// What is quantized and appended to a cache, and how.
fn appended(graph: &Graph, append: ValueId) -> Option<(ValueId, Format, Fit)> {
    let rows = *graph.operands(append).get(1)?;
    match graph.op(rows) {
        Op::Quantize { to, fit } => Some((graph.operands(rows)[0], to.clone(), *fit)),
        _ => None,
    }
}
