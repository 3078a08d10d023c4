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
use crate::weights::{Change, Differences, Hessian, Method, Summary, WINDOW, quantize};

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
    let all = linears.len();
    let now = if method.needs_data() { first_round(graph, &linears) } else { linears };
    let last = now.len() == all;
    for linear in now {
        let [x, weight] = graph.operands(linear)[..] else { unreachable!("a linear has two operands") };
        by_input.entry((x, pass.group(graph, weight))).or_default().push(linear);
    }
    let known =
        if method.needs_data() { look(graph, (&by_input, last), method, calibration)? } else { vec![] };
    let mut known = known.into_iter();
    let mut names = Names::new(graph);
    let mut patches = vec![];
    for ((_, group), linears) in &by_input {
        let known = known.next();
        for linear in linears {
            let (patch, found) = patch(graph, *linear, *group, method, known.as_ref(), &mut names)?;
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

/// What inputs are like, and what errors before them changed.
struct Known {
    hessian: Hessian,
    change: Option<Change>,
}

/// Looks at each input as linears will see it: behind the quantized linears before it, itself in FP8.
fn look(
    graph: &Graph,
    (by_input, last): (&BTreeMap<Input, Vec<ValueId>>, bool),
    method: &Method,
    calibration: &Calibration,
) -> Result<Vec<Known>, PassError> {
    let mut seen = graph.clone();
    let activations = crate::pipeline("quantize-activations").expect("a pass of this name");
    activations.run(&mut seen).map_err(|failed| failed.source)?;
    let cols = |v: &ValueId| graph.ty(*v).shape.cols().fixed().unwrap_or(1);
    let was = if method.catch_up > 0.0 { as_they_were(graph, (by_input, last), calibration)? } else { None };
    let of = |(x, group): &Input| {
        let hessian = Hessian::new(cols(x), WINDOW, *group);
        (was.is_some().then(|| Differences::new(&hessian)), hessian)
    };
    let mut sums: Vec<(Option<Differences>, Hessian)> = by_input.keys().map(of).collect();
    let mut was: Vec<_> = was.into_iter().flatten().map(Vec::into_iter).collect();
    let taps: Vec<ValueId> = by_input.keys().map(|(x, _)| *x).collect();
    calibration.observe(&seen, &taps, usize::MAX, |tap, tensor| {
        let (now, rows) = (in_fp8(tensor), tensor.rows());
        let (differences, hessian) = &mut sums[tap];
        hessian.add_rows(&now, rows);
        if let Some((differences, was)) = differences.as_mut().zip(was.get_mut(tap)) {
            let was = was.next().expect("both graphs have the same sequences");
            differences.add_rows(&was.to_f32(), &now, rows);
        }
    })?;
    let change = |(differences, hessian): (Option<Differences>, Hessian)| {
        let change = differences.map(|differences| differences.into_change(&hessian, method.damping));
        Known { hessian, change }
    };
    Ok(sums.into_iter().map(change).collect())
}

/// Each input on each sequence, had nothing been quantized; `None` where that is not known. Behind the last linears what the
/// graph gives is looked at, too.
fn as_they_were(
    graph: &Graph,
    (by_input, last): (&BTreeMap<Input, Vec<ValueId>>, bool),
    calibration: &Calibration,
) -> Result<Option<Vec<Vec<Tensor>>>, PassError> {
    let Some(reference) = calibration.reference() else { return Ok(None) };
    let weight = |graph: &Graph, linear: ValueId| leaf_name(graph, graph.operands(linear)[1]);
    let before: BTreeMap<_, ValueId> = (reference.graph.schedule().into_iter())
        .filter(|v| *reference.graph.op(*v) == Op::Linear)
        .map(|v| (weight(&reference.graph, v), reference.graph.operands(v)[0]))
        .collect();
    let taps = by_input.values().map(|linears| before.get(&weight(graph, linears[0])).copied());
    let Some(taps) = taps.collect::<Option<Vec<ValueId>>>() else { return Ok(None) };
    Ok(Some(reference.values(calibration, &taps, last)?))
}

fn in_fp8(x: &Tensor) -> Vec<f32> {
    Quantized::from_rows(&x.to_f32(), x.cols(), &Format::activation(), Fit::Absmax).dequantize()
}

fn patch(
    graph: &Graph,
    linear: ValueId,
    group: usize,
    method: &Method,
    known: Option<&Known>,
    names: &mut Names<'_>,
) -> Result<(Patch, Weight), PassError> {
    let [x, weight] = graph.operands(linear)[..] else { unreachable!("a linear has two operands") };
    let name = leaf_name(graph, weight);
    let refuse = |reason: String| PassError::Refused { site: name.to_string(), reason };
    let tensor = eval_constant(graph, weight).map_err(|e| refuse(e.to_string()))?;
    let (mut w, hessian) = (tensor.to_f32(), known.map(|known| &known.hessian));
    if let Some(change) = known.and_then(|known| known.change.as_ref()) {
        change.add_to(&mut w, method.catch_up);
    }
    let (codes, summary) = quantize(&w, tensor.cols(), group, method, hessian);
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
