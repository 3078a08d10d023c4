//! Every launch of a plan against the interpreter, on the operands that it had.
//!
//! So an error is found where it is made, however little of it is seen behind: each operation is judged alone.

use fireq_ir::interp::{Data, Tensor, eval};
use fireq_ir::plan::{BufferId, Kernel, Launch, Place, Plan, Step, Storage, parts, unpack};
use fireq_ir::quant::Quantized;
use fireq_ir::{Dim, Shape, Type};

use crate::RuntimeError;

/// How near a launch came.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The launch's symbol.
    pub symbol: String,
    /// Its kernel.
    pub kernel: &'static str,
    /// Relative L2 error of its result, of numbers that codes stand for.
    pub error: f64,
    /// The most that it may be.
    pub tolerance: f64,
}

/// Sums in an order of their own.
const SUMS: f64 = 1e-5;
/// Probabilities in the middle of two codes.
const PROBABILITIES: f64 = 5e-4;
/// Codes that are now and then a neighbour.
const NEIGHBOURS: f64 = 1e-2;

impl Compared {
    /// Whether the device does what the interpreter does.
    pub fn agrees(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Compares a launch whose step is done; `value` gives what a buffer of the plan holds.
pub(crate) fn compare(
    plan: &Plan,
    launch: &Launch,
    step: Step,
    value: &dyn Fn(BufferId) -> Result<Tensor, RuntimeError>,
) -> Result<Compared, RuntimeError> {
    let (found, mut operands) = (value(launch.output)?, vec![]);
    if launch.kernel.appends() {
        operands.push(rows(&found, 0, step.past));
    }
    for input in &launch.inputs {
        operands.push(value(*input)?);
    }
    let wanted = eval(&launch.kernel.to_op(), &operands.iter().collect::<Vec<_>>());
    let wanted = wanted.map_err(|e| RuntimeError::Step(format!("`{}`: {e}", launch.symbol)))?;
    let from = if launch.kernel.appends() { step.past } else { 0 };
    let numbers = |tensor: &Tensor| rows(tensor, from, tensor.rows()).to_f32();
    let codes = plan.buffers[launch.output].ty.dtype.is_code();
    let tolerance = match launch.kernel {
        Kernel::Attention { .. } => PROBABILITIES,
        _ if codes => NEIGHBOURS,
        _ => SUMS,
    };
    Ok(Compared {
        symbol: launch.symbol.to_string(),
        kernel: launch.kernel.mnemonic(),
        error: relative_error(&numbers(&wanted), &numbers(&found)),
        tolerance,
    })
}

/// The type that a buffer has in a step: without symbols, caches with what they hold behind it.
pub(crate) fn type_in(plan: &Plan, buffer: BufferId, step: Step) -> Type {
    let buffer = &plan.buffers[buffer];
    let fixed = |dim: &Dim| Dim::Fixed(step.rows(dim));
    let mut dims: Vec<Dim> = buffer.ty.shape.0.iter().map(fixed).collect();
    if let (Place::Cache(_), Some(rows)) = (&buffer.place, dims.first_mut()) {
        *rows = Dim::Fixed(step.past + step.tokens);
    }
    Type { shape: Shape(dims.into_iter().collect()), ..buffer.ty.clone() }
}

/// The value of this type whose parts `read` gives: which part, and its bytes.
pub(crate) fn tensor<B: AsRef<[u8]>>(
    ty: &Type,
    storage: Storage,
    mut read: impl FnMut(usize, usize) -> Result<B, RuntimeError>,
) -> Result<Tensor, RuntimeError> {
    let no_size = || RuntimeError::Step(format!("a value of type {ty} has no size"));
    let rows = ty.shape.rows().fixed().unwrap_or(1);
    let list = parts(ty, storage).ok_or_else(no_size)?;
    let bytes = list.iter().enumerate().map(|(n, part)| read(n, part.stored(rows).ok_or_else(no_size)?.1));
    let bytes = bytes.collect::<Result<Vec<B>, _>>()?;
    unpack(ty, storage, &bytes.iter().map(B::as_ref).collect::<Vec<_>>()).ok_or_else(no_size)
}

/// Channels of each row, as a slice has them.
pub(crate) fn columns(tensor: &Tensor, start: usize, size: usize) -> Tensor {
    let values = tensor.to_f32();
    let rows = values.chunks(tensor.cols().max(1)).flat_map(|row| &row[start..start + size]);
    Tensor::from_rows(rows.copied().collect(), size)
}

/// Some of the rows.
fn rows(tensor: &Tensor, from: usize, to: usize) -> Tensor {
    let all = tensor.rows().max(1);
    let cut = |values: &[f32]| values[values.len() / all * from..values.len() / all * to].to_vec();
    let data = match &tensor.data {
        Data::Float(values) => Data::Float(cut(values)),
        Data::Int(values) => Data::Int(values.clone()),
        Data::Quant(q) => Data::Quant(Quantized {
            codes: q.codes[q.cols * from..q.cols * to].to_vec(),
            scales: q.scales.iter().map(|scales| cut(scales)).collect(),
            ..q.clone()
        }),
    };
    let shape = Shape::matrix(to - from, tensor.cols());
    Tensor { ty: Type { shape, ..tensor.ty.clone() }, data }
}

fn relative_error(wanted: &[f32], found: &[f32]) -> f64 {
    let (mut off, mut all) = (0.0, 0.0);
    for (w, f) in wanted.iter().zip(found) {
        let (w, f) = (f64::from(*w), f64::from(*f));
        off += (w - f) * (w - f);
        all += w * w;
    }
    match (wanted.len() == found.len(), off) {
        (false, _) => f64::INFINITY,
        (true, 0.0) => 0.0,
        (true, off) if off.is_nan() => f64::INFINITY,
        (true, off) => (off / all.max(f64::MIN_POSITIVE)).sqrt(),
    }
}
