//! GPU kernels on the simulator against the interpreter: each kernel in shapes with and without tails.
//!
//! Tolerances: none where the contract has no freedom, which is everywhere but in `silu` (a relative 2⁻²⁰ of a row's
//! scale, and now and then a code's neighbour), in the order of sums of logits and linears (a relative L2 error of 1e-6),
//! and in probabilities of prefill attention, which may go to either of two codes that they lie in the middle of (5e-4).

mod broken;
mod conformance;
mod decode_attention;
mod device;
mod gather_pages;
mod heads;
mod linear;
mod linear_fp8;
mod odd;
mod oracle;
mod plain;
mod pool;
mod prefill;
mod promotion;
mod record;
mod rows;
mod sample;
mod timed;
