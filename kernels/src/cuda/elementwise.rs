//! Element-wise kernels: one expression for every element.

use fireq_ir::DType;

use super::expression::{Expr, Scalar};
use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, access, chunk, float_name, text};

const THREADS: usize = 256;

/// An element-wise operation of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elementwise {
    /// `a + b`.
    Add,
    /// `a · b`.
    Mul,
    /// `a + b[channel]`.
    Bias,
    /// `a · b[channel]`.
    Scale,
}

impl Elementwise {
    /// The name in text IR.
    pub fn mnemonic(self) -> &'static str {
        match self {
            Elementwise::Add => "add",
            Elementwise::Mul => "mul",
            Elementwise::Bias => "bias",
            Elementwise::Scale => "scale",
        }
    }

    fn expression(self) -> Expr {
        match self {
            Elementwise::Add | Elementwise::Bias => Expr::A.plus(Expr::B),
            Elementwise::Mul | Elementwise::Scale => Expr::A.times(Expr::B),
        }
    }

    fn channels(self) -> bool {
        matches!(self, Elementwise::Bias | Elementwise::Scale)
    }
}

/// The operation on rows of `cols` channels; `b` is f32 but for vectors of channels.
pub fn elementwise(op: Elementwise, cols: usize, b: DType) -> Result<Unit, Unsupported> {
    if !op.channels() && b != DType::F32 {
        return Err(Unsupported(format!("`{}` of f32 and {b}", op.mnemonic())));
    }
    let chunk = chunk(cols, &[4, 2]);
    let name = format!("{}_{b}_{cols}", op.mnemonic());
    let body = body("Body", &op.expression())?;
    let arguments = format!("Body, {}, {cols}, {}, {THREADS}, {chunk}", float_name(b)?, op.channels());
    let text = text::<params::Elementwise>(&Parts {
        name: &name,
        kernel: "elementwise",
        names: &[body],
        arguments: &arguments,
        cta: Cta::of(THREADS),
    });
    Ok(Unit {
        shape: format!("rows of {cols}"),
        config: format!("{THREADS} threads, {chunk} numbers each"),
        reason: format!("bound by memory: {}", access(4 * chunk)),
        cta: Cta::of(THREADS),
        grid: Grid::Elements { cols, per_cta: THREADS * chunk },
        name,
        text,
    })
}

/// `silu(a)·b`, a structure named `Swiglu`: of gates and ups, wherever they come from.
pub(super) fn swiglu() -> Result<String, Unsupported> {
    body("Swiglu", &Expr::A.silu().times(Expr::B))
}

/// A structure with the expression as its `apply` of two numbers.
fn body(name: &str, expression: &Expr) -> Result<String, Unsupported> {
    let found = expression.check().map_err(|e| Unsupported(e.to_string()))?;
    if found != Scalar::F32 {
        return Err(Unsupported(format!("`{}` is no number", expression.print())));
    }
    Ok(format!(
        "struct {name} {{\n    static __device__ float apply(float a, float b) {{ return {}; }}\n}};",
        expression.print()
    ))
}
