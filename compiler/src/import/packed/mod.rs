//! Weights that are codes already: checkpoints of GPTQ, AWQ, compressed-tensors and FP8.
//!
//! Nothing is decoded when a model is imported: a packed weight becomes a constant whose rows are decoded when they are asked for
//! ([`fireq_ir::RowSource`]). 4-bit codes whose zero point is their middle, in groups of neighbouring channels, are such codes
//! in the graph, under `dequantize`, so that a recipe can keep them; all else is numbers in f32, which holds a scale of 16 bits
//! times a code exactly. Which weights are packed is said by their tensors; what a configuration's lists of names say adds nothing.
//!
//! | file | holds |
//! |---|---|
//! | `scheme`, `compressed` | what `quantization_config` says, checked |
//! | `take` | the tensors of a packed weight, checked, by method |
//! | `decode`, `layout` | rows of codes, zero points and scales in the orders of the formats, and what they stand for |
//! | `part` | rows of a weight that is stored for several |
//! | `fp8` | the same for FP8 |

mod compressed;
mod decode;
mod fp8;
mod layout;
mod part;
mod scheme;
mod take;

use std::collections::BTreeMap;

pub(super) use part::rows;
pub use scheme::Packing;
pub(super) use take::take;

/// The packed weights of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The method and its numbers: `gptq, 4 bits in groups of 128`.
    pub method: String,
    /// Bytes of all tensors of the checkpoint, packed or not.
    pub bytes: u64,
    /// Each weight, and why its codes cannot stay as they are where they cannot.
    pub weights: BTreeMap<String, Option<&'static str>>,
}
