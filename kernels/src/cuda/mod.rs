//! CUDA kernels for Hopper: building blocks in C++, and units that instantiate them.
//!
//! A unit has no logic: an include, a few names, and one instantiation with a C name. Sizes, formats and tiles are
//! template arguments, chosen here; the C++ is in `kernels/cuda`, in layers of which each includes only lower ones.
//!
//! Products with INT4 weights have two kernels: [`Linear::unit`] decodes weights while it multiplies them; for many tokens
//! [`Linear::decode_unit`] decodes them once into a workspace, and [`LinearFp8::unit`] multiplies E4M3 by E4M3.
//! [`cost_fp8::paths`] says which does it for how many tokens.
//!
//! Rows have any number of columns and channels. What is copied for tensor cores, E4M3 tokens and heads of queries and keys,
//! lies a [`pitch`](crate::layout::pitch) of whole 16 bytes apart; all else without gaps, and is read and written as wide as
//! the addresses of its rows allow. There are no kernels for
//!
//! * INT4 weights in groups of other than 64 or 128 columns;
//! * rows of more than 32768 numbers that are normed or quantized, since they stay in registers;
//! * heads of no multiple of 4 channels, as the words of pages have four neighbours, or of more than 256 channels, and beyond
//!   128 of no multiple of 8, which are more than the lanes of a warp hold;
//! * gated products whose gates are no multiple of 64, which a warpgroup has: a product and silu·up apart do that;
//! * attention of single tokens with more than 16 query heads for one of keys, which prefill does.
//!
//! Every kernel may begin before the launch in front of it has ended: it waits itself before it touches what launches write, and
//! lets later ones begin. In front of the wait stand barriers, weights of norms, and the first stages of INT4 weights of products.
//! What that gains is not measured.
//!
//! Numbers are the interpreter's. Divisions are IEEE's, nothing is contracted, rotations are carried in f64 and norms in
//! pairs of f32, so that scales, codes, caches and workspaces have its bits. It differs
//!
//! * in norms where 46 bits of a product round to another f32 than the interpreter's 53 do: the last bit of one number
//!   in a million;
//! * in `silu`, good to a relative 2⁻²⁰: so is a row's scale, and a code may be its neighbour where `x/s` lies that close
//!   to the middle of two;
//! * in `logits`, of float weights and of E4M3 ones, whose sums are f32 in an order of their own: good to `K/32 · 2⁻²⁴` of `Σ|x·w|`;
//! * in products with INT4 weights, whose sums tensor cores take: products and numbers are exact, the bits that sums keep
//!   are the hardware's until they move to f32 registers, as often as [`cost::promotion`] says. On the simulator, which
//!   rounds once per instruction, a relative L2 error below 10⁻⁶; with it, gated products have `silu`'s;
//! * in attention, whose scores and sums are f32 in an order of their own, so that a probability in the middle of two codes may
//!   become either: a relative L2 error below 5·10⁻⁴.

pub mod cost;
pub mod cost_fp8;
pub mod cost_prefill;
mod decode_attention;
mod decode_weight;
mod elementwise;
mod epilogue;
pub mod expression;
mod gather;
mod gather_pages;
pub mod include;
mod linear;
mod linear_fp8;
mod logits;
pub mod params;
mod prefill;
pub mod program;
mod promotion;
mod qkv;
mod rope_table;
mod row;
mod sample;
mod sequence;
pub mod sources;
pub mod splits;
pub mod tuning;
mod unit;

pub use elementwise::{Elementwise, elementwise};
pub use epilogue::{Addend, Output};
pub use gather::gather;
pub use gather_pages::gather_pages;

pub use linear::{Linear, LinearConfig, MOST_SHARED, TOKEN_TILES};
pub use linear_fp8::{FP8_THREADS, LinearFp8, LinearFp8Config, Schedule, tile_place};
pub use logits::logits;
pub use prefill::{Prefill, PrefillConfig, QUERIES, value_position};
pub use qkv::{BLOCK, Qkv, runs};
pub use rope_table::rope_table;
pub use row::{RowTile, norm_quantize, quantize, rms_norm, swiglu_quantize};
pub use sample::sample;
pub use sequence::{Sequence, prefill_tiles};
pub use splits::DecodeAttention;
pub use unit::{Cta, Grid, Unit, Unsupported};
