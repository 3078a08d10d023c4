//! What becomes of a product's sums, whichever kernel has them; mirrored in `kernels/cuda/epilogue/linear.cuh`.

use fireq_ir::DType;

use super::elementwise::swiglu;
use super::unit::{Unsupported, chunk, float_name};

/// What the epilogue adds to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addend {
    /// Nothing.
    Nothing,
    /// A vector of channels in this float format.
    Bias(DType),
    /// An f32 matrix of the output's shape: `residual + x·weightᵀ`.
    Residual,
}

/// What an epilogue makes of a product's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Each as f32.
    F32,
    /// Each rounded to bf16.
    Bf16,
    /// `silu(gate)·up` as f32, gates the first half of the weight's rows and ups the second. One warpgroup of a CTA has gates,
    /// the other their ups, so that both halves come in multiples of 64 rows. A row quantizer behind it reads 4 bytes for
    /// each of F outputs of a token where it read 8, as many fewer are written, and scratch is half as large: of 17·F
    /// bytes of a token 9·F are left. It costs tiles of one warpgroup, which are not there, and no launch is saved.
    Swiglu,
}

impl Output {
    /// Bytes written for each row of the weight and each token.
    pub fn bytes(self) -> usize {
        if self == Output::F32 { 4 } else { 2 }
    }

    /// Rows of the weight that an output is made of.
    pub fn operands(self) -> usize {
        if self == Output::Swiglu { 2 } else { 1 }
    }
}

/// An epilogue as units name it.
pub(super) struct Epilogue {
    /// What it adds to the name of a function: nothing where it writes the product itself.
    pub suffix: String,
    /// The template argument.
    pub functor: String,
    /// What the argument needs defined.
    pub body: Vec<String>,
}

impl Epilogue {
    /// The epilogue that adds `addend` and makes `output` of rows of `channels`. A thread writes 16 bytes at a time, or fewer
    /// where rows do not begin at such addresses.
    pub fn of(addend: Addend, output: Output, channels: usize) -> Result<Self, Unsupported> {
        let (suffix, added) = match addend {
            Addend::Nothing => (String::new(), "Nothing".into()),
            Addend::Bias(DType::F32) => ("_bias".into(), "Bias".into()),
            Addend::Bias(dtype) => (format!("_bias_{dtype}"), format!("BiasOf<{}>", float_name(dtype)?)),
            Addend::Residual => ("_add".into(), "Residual".into()),
        };
        let narrow = |widest: usize| match chunk(channels, &[8, 4, 2]) {
            at_once if at_once < widest => (format!("_by{at_once}"), format!(", {at_once}")),
            _ => (String::new(), String::new()),
        };
        let (suffix, functor, body) = match output {
            Output::F32 => {
                let (by, width) = narrow(4);
                (format!("{suffix}{by}"), format!("Plain<{added}, float{width}>"), vec![])
            }
            Output::Bf16 => {
                let (by, width) = narrow(8);
                (format!("{suffix}_to_bf16{by}"), format!("Plain<{added}, bf16{width}>"), vec![])
            }
            Output::Swiglu => ("_swiglu".into(), "Gated<Swiglu>".into(), vec![swiglu()?]),
        };
        Ok(Epilogue { suffix, functor, body })
    }
}
