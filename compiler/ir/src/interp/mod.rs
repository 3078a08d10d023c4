//! The interpreter: the oracle that every pass and every backend is checked against.
//!
//! It is naive: one operation at a time, sums in f64 rounded once to f32, the numeric contract followed to the letter.

mod attention;
mod constant;
mod ops;
mod tensor;

use std::collections::BTreeMap;

use thiserror::Error;

use crate::fused::{self, Slot};
use crate::{Graph, Op, Type, ValueId};

pub use constant::eval_constant;
pub(crate) use constant::{eval_rows, row_wise};
pub(crate) use tensor::widen;
pub use tensor::{Data, Tensor};

/// What a run leaves behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The graph's outputs, in order.
    pub outputs: Vec<Tensor>,
    /// Each cache after this step, by name: the past rows and the new ones.
    pub caches: BTreeMap<String, Tensor>,
}

/// Why a graph cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InterpError {
    /// An input or cache was not given.
    #[error("no value is given for {kind} `{name}`")]
    Missing {
        /// `input` or `cache`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A given value does not have the declared type.
    #[error("{kind} `{name}` has type {found}, the graph declares {declared}")]
    Mismatch {
        /// `input` or `cache`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Type of the given value.
        found: String,
        /// Type in the graph.
        declared: String,
    },
    /// An operation cannot be computed on these values.
    #[error("`{op}`: {reason}")]
    Op {
        /// The mnemonic.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Every cache of a graph by name, without rows; rows must have a fixed length.
pub fn empty_caches(graph: &Graph) -> BTreeMap<String, Tensor> {
    let caches = graph.schedule().into_iter().filter_map(|value| match graph.op(value) {
        Op::Cache { name } => Some((name.to_string(), Tensor::empty_cache(graph.ty(value)))),
        _ => None,
    });
    caches.collect()
}

/// Runs a graph. `inputs` and `caches` give a tensor for each by name; elided constants get random data that depends
/// on their name only, so that graphs without data can be compared before and after a pass.
pub fn interpret(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    caches: &BTreeMap<String, Tensor>,
) -> Result<Outcome, InterpError> {
    interpret_observed(graph, inputs, caches, &mut |_, _| ())
}

/// Runs a graph as [`interpret`] does, and shows every value to `observe`.
pub fn interpret_observed(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    caches: &BTreeMap<String, Tensor>,
    observe: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Outcome, InterpError> {
    let schedule = graph.schedule();
    let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    schedule.iter().flat_map(|v| graph.operands(*v)).for_each(|v| *uses.entry(v).or_default() += 1);
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let mut after = BTreeMap::new();
    for value in schedule {
        let operands = graph.operands(value);
        let tensor = match graph.op(value) {
            Op::Input { name } => given("input", name, graph, value, inputs)?,
            Op::Cache { name } => given("cache", name, graph, value, caches)?,
            Op::Const { name } => Tensor::constant(name, graph.ty(value), graph.constants.get(name), None)?,
            op => eval(op, &operands.iter().map(|v| &values[v]).collect::<Vec<_>>())?,
        };
        let cache = operands.first().and_then(|c| graph.op(*c).name());
        if let Some(name) = cache.filter(|_| graph.op(value).appends()) {
            after.insert(name.to_string(), tensor.clone());
        }
        observe(value, &tensor);
        values.insert(value, tensor);
        drop_dead(graph, &operands, &mut uses, &mut values);
    }
    let outputs = graph.outputs.iter().map(|v| values[v].clone()).collect();
    Ok(Outcome { outputs, caches: after })
}

/// The result of an operation on operands of fixed shapes; a fused one is computed as the operations that it stands for.
pub fn eval(op: &Op, operands: &[&Tensor]) -> Result<Tensor, InterpError> {
    let types: Vec<&Type> = operands.iter().map(|t| &t.ty).collect();
    op.check_arity(operands.len()).map_err(|reason| InterpError::Op { op: op.mnemonic(), reason })?;
    let Some(parts) = fused::parts(op, &types) else { return ops::eval(op, operands) };
    let mut steps: Vec<Tensor> = vec![];
    for part in &parts {
        let tensor = |slot: &Slot| match slot {
            Slot::Operand(n) => operands[*n],
            Slot::Step(n) => &steps[*n],
        };
        let result = ops::eval(&part.op, &part.operands.iter().map(tensor).collect::<Vec<_>>())?;
        steps.push(result);
    }
    steps.pop().ok_or(InterpError::Op { op: op.mnemonic(), reason: "stands for nothing".into() })
}

fn drop_dead(
    graph: &Graph,
    operands: &[ValueId],
    uses: &mut BTreeMap<ValueId, usize>,
    values: &mut BTreeMap<ValueId, Tensor>,
) {
    for operand in operands {
        let left = uses.entry(*operand).or_insert(1);
        *left -= 1;
        if *left == 0 && !graph.outputs.contains(operand) {
            values.remove(operand);
        }
    }
}

fn given(
    kind: &'static str,
    name: &str,
    graph: &Graph,
    value: ValueId,
    from: &BTreeMap<String, Tensor>,
) -> Result<Tensor, InterpError> {
    let tensor = from.get(name).ok_or_else(|| InterpError::Missing { kind, name: name.into() })?;
    let declared = graph.ty(value);
    if tensor.fits(declared) {
        return Ok(tensor.clone());
    }
    let (found, declared) = (tensor.ty.to_string(), declared.to_string());
    Err(InterpError::Mismatch { kind, name: name.into(), found, declared })
}
