//! Weights quantized for the inputs that they will see: a round of linears at a time, those that no other linear that is
//! still to be quantized lies before.

use std::collections::{BTreeMap, BTreeSet};

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::interp::{Tensor, eval_constant};
use fireq_ir::plan::constant_data;
use fireq_ir::quant::Quantized;
use fireq_ir::{Fit, Format, Graph, Op, PassError, Patch, ValueId};

use super::QuantizeWeights;
use crate::calibration::Calibration;
use crate::findings::Weight;
use crate::pattern::Names;
use crate::weights::{Hessian, Method, Summary, WINDOW, quantize};

/// What linears read, and the channels that a scale of theirs covers.
type Input = (ValueId, usize);

/// The patches of the first round, one for each weight; without data there is only one round.
pub(super) fn round(
    pass: &QuantizeWeights,
    graph: &Graph,
    method: &Method,
    calibration: &Calibration,
) -> Result<Vec<Patch>, PassError> {
    note_kept(pass, graph, calibration);
    let linears: Vec<ValueId> =
        graph.schedule().into_iter().filter(|v| pass.weight(graph, *v).is_some()).collect();
    let mut by_input: BTreeMap<Input, Vec<ValueId>> = BTreeMap::new();
    let now = if method.needs_data() { first_round(graph, &linears) } else { linears };
    for linear in now {
        let [x, weight] = graph.operands(linear)[..] else { unreachable!("a linear has two operands") };
        by_input.entry((x, pass.group(graph, weight))).or_default().push(linear);
    }
    let inputs: Vec<Input> = by_input.keys().copied().collect();
    let mut known =
        if method.needs_data() { hessians(graph, &inputs, calibration)? } else { vec![] }.into_iter();
    let mut names = Names::new(graph);
    let mut patches = vec![];
    for ((_, group), linears) in &by_input {
        let hessian = known.next();
        for linear in linears {
            let (patch, found) = patch(graph, *linear, *group, method, hessian.as_ref(), &mut names)?;
            calibration.note(|block| block.weights.push(found));
            patches.push(patch);
        }
    }
    Ok(patches)
}

/// Notes linears whose plain weights stay plain.
fn note_kept(pass: &QuantizeWeights, graph: &Graph, calibration: &Calibration) {
    for linear in graph.schedule().into_iter().filter(|v| *graph.op(*v) == Op::Linear) {
        let weight = graph.operands(linear)[1];
        if !graph.ty(weight).scheme.is_plain() || pass.weight(graph, linear).is_some() {
            continue;
        }
        let kept = || format!("option `keep` is `{}`", pass.keep);
        let reason = if is_constant(graph, weight) { kept() } else { "the weight is no constant".into() };
        calibration.refuse(&leaf_name(graph, weight), reason);
    }
}

/// The linears that none of the others lies before.
fn first_round(graph: &Graph, linears: &[ValueId]) -> Vec<ValueId> {
    let wanted: BTreeSet<ValueId> = linears.iter().copied().collect();
    let mut behind: BTreeSet<ValueId> = BTreeSet::new();
    let mut first = vec![];
    for value in graph.schedule() {
        let after = graph.operands(value).iter().any(|v| behind.contains(v) || wanted.contains(v));
        if after {
            behind.insert(value);
        } else if wanted.contains(&value) {
            first.push(value);
        }
    }
    first
}

/// The second moment of each input as linears will see it: behind the quantized linears before it, itself in FP8.
fn hessians(graph: &Graph, inputs: &[Input], calibration: &Calibration) -> Result<Vec<Hessian>, PassError> {
    let mut seen = graph.clone();
    let activations = crate::pipeline("quantize-activations").expect("a pass of this name");
    activations.run(&mut seen).map_err(|failed| failed.source)?;
    let cols = |v: &ValueId| graph.ty(*v).shape.cols().fixed().unwrap_or(1);
    let of = |(x, group): &Input| Hessian::new(cols(x), WINDOW, *group);
    let mut hessians: Vec<Hessian> = inputs.iter().map(of).collect();
    let taps: Vec<ValueId> = inputs.iter().map(|(x, _)| *x).collect();
    calibration.observe(&seen, &taps, usize::MAX, |tap, tensor| {
        hessians[tap].add_rows(&in_fp8(tensor), tensor.rows());
    })?;
    Ok(hessians)
}

fn in_fp8(x: &Tensor) -> Vec<f32> {
    Quantized::from_rows(&x.to_f32(), x.cols(), &Format::activation(), Fit::Absmax).dequantize()
}

fn patch(
    graph: &Graph,
    linear: ValueId,
    group: usize,
    method: &Method,
    hessian: Option<&Hessian>,
    names: &mut Names<'_>,
) -> Result<(Patch, Weight), PassError> {
    let [x, weight] = graph.operands(linear)[..] else { unreachable!("a linear has two operands") };
    let name = leaf_name(graph, weight);
    let refuse = |reason: String| PassError::Refused { site: name.to_string(), reason };
    let tensor = eval_constant(graph, weight).map_err(|e| refuse(e.to_string()))?;
    let (codes, summary) = quantize(&tensor.to_f32(), tensor.cols(), group, method, hessian);
    let mut patch = Patch::new(&*name);
    let ty = graph.ty(weight).with_format(&codes.format);
    let codes = patch.constant(&names.fresh(&name, "i4"), ty, constant_data(codes));
    let quantized = patch.add(graph, Op::Linear, &[x.into(), codes])?;
    patch.replace(linear, quantized);
    patch.notes.push(note(&summary));
    let Summary { clips, outer_min, outer_max, underflows, error, .. } = summary;
    let found = Weight {
        name: name.to_string(),
        method: method.name().into(),
        group,
        rows: tensor.rows(),
        cols: tensor.cols(),
        error: f64::from(error),
        clip: clips,
        outer_min,
        outer_max,
        underflow: underflows,
    };
    Ok((patch, found))
}

fn note(summary: &Summary) -> String {
    let Summary { error, outer_min, outer_max, underflows, damping, .. } = summary;
    format!(
        "error {error:.4}, outer scales {outer_min:.3e} to {outer_max:.3e}, {underflows} underflows, damping {damping}"
    )
}
