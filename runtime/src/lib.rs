//! Loads artifacts and executes their plans. Needs no compiler, no LLVM and no toolkit.
//!
//! [`Artifact::open`] trusts nothing before it checked version, machine and hashes, but for the numbers in weights, whose hash is
//! known before the first result is handed out; [`Executor`] runs a plan on buffers it owns; [`Session`] feeds it tokens and hands out logits; [`Sampler`] picks the next token. [`cuda::Executor`] does the same on
//! a GPU, for several sequences in a step, and [`cuda::Batch`] continues many texts there.

mod artifact;
pub mod bounded;
mod buffers;
mod compare;
pub mod cuda;
mod error;
mod executor;
mod faults;
mod files;
mod hash;
mod mapped;
mod memory;
mod sample;
mod session;
mod threads;
mod trace;
mod weights;

pub use artifact::Artifact;
pub use compare::Compared;
pub use error::RuntimeError;
pub use executor::{Executor, Limits};
pub use faults::explain_faults;
pub use fireq_kernels::cuda::params::Draw;
pub use mapped::Mapped;
pub use memory::Bytes;
pub use sample::{Sampler, Sampling, pick};
pub use session::{Select, Session};
pub use trace::{Ran, chrome_trace};
pub use weights::Weights;
