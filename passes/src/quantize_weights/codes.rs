//! Weights that a checkpoint holds as codes: rounding what these stand for would move them, and add one error to another.
//!
//! `linear(x, dequantize(C))`, with I4 codes C under one scale for each group or row, becomes `linear(x, rescale(C))`; a factor
//! for each row, such as smoothing leaves in what makes a smoothed input, goes into the scales. Groups are those of the option
//! where these lie inside of the checkpoint's, and else the checkpoint's, as far as kernels can decode them. A factor for each
//! channel changes codes, so that such a weight is quantized as any other.

use std::fmt;
use std::str::FromStr;

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{DType, Format, Graph, Op, PassError, Patch, ValueId};

use super::{Group, QuantizeWeights};

/// What becomes of codes that a weight has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codes {
    /// They stay.
    #[default]
    Keep,
    /// What they stand for is quantized as any weight.
    Requantize,
}

impl FromStr for Codes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Codes::Keep),
            "requantize" => Ok(Codes::Requantize),
            _ => Err("it is keep or requantize".into()),
        }
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Codes::Keep { "keep" } else { "requantize" })
    }
}

/// The codes of a weight, and factors of its rows, if it has any.
struct Held {
    codes: ValueId,
    rows: Option<ValueId>,
}

/// Whether a weight is codes that can stay, under groups that kernels can decode.
pub(crate) fn has_codes(graph: &Graph, weight: ValueId) -> bool {
    held(graph, weight).is_some_and(|held| group(graph, held.codes, 32).is_some())
}

fn held(graph: &Graph, weight: ValueId) -> Option<Held> {
    let (dequantized, rows) = match graph.op(weight) {
        Op::ScaleRows => (graph.operands(weight)[0], Some(graph.operands(weight)[1])),
        _ => (weight, None),
    };
    let codes = *graph.operands(dequantized).first().filter(|_| *graph.op(dequantized) == Op::Dequantize)?;
    is_constant(graph, weight).then_some(Held { codes, rows })
}

/// Channels per scale of codes that stay, where `wanted` are asked for.
fn group(graph: &Graph, codes: ValueId, wanted: usize) -> Option<usize> {
    let ty = graph.ty(codes);
    let cols = ty.shape.cols().fixed()?;
    let [level] = ty.scheme.0[..] else { return None };
    if ty.dtype != DType::I4 || level.dtype == DType::E4M3 {
        return None;
    }
    let extent = level.extent(cols);
    if extent >= cols || extent.is_multiple_of(wanted) {
        return Some(wanted);
    }
    Group::try_from(extent).ok().map(|group| group.0)
}

impl QuantizeWeights {
    /// The patch that keeps the codes of a linear's weight, where it has some.
    pub(super) fn taken_over(&self, graph: &Graph, value: ValueId) -> Option<Result<Patch, PassError>> {
        let weight = self.weight(graph, value).filter(|_| self.codes == Codes::Keep)?;
        let Held { codes, rows } = held(graph, weight)?;
        let group = group(graph, codes, self.group(graph, weight))?;
        let keep = || {
            let mut patch = Patch::new(&*leaf_name(graph, weight));
            let operands: Vec<_> = [Some(codes), rows].into_iter().flatten().map(Into::into).collect();
            let rescaled = patch.add(graph, Op::Rescale { to: Format::weight(group) }, &operands)?;
            let linear = patch.add(graph, Op::Linear, &[graph.operands(value)[0].into(), rescaled])?;
            patch.replace(value, linear);
            patch.notes.push(format!("keeps the codes of {}", graph.ty(codes).format()));
            Ok(patch)
        };
        Some(keep())
    }
}
