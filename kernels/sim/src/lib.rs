//! A functional simulator of `sm_90a` kernels: it executes the PTX that NVRTC emits, on the CPU.
//!
//! A [`Module`] is parsed from PTX text, a [`Memory`] holds named allocations, and [`run`] executes a [`Launch`] on
//! them: grid, clusters, CTAs, warps and lanes. Warps interleave in an order that a seed decides, and asynchronous
//! operations complete as early or as late as the instruction set allows, so that a missing wait shows.
//!
//! What a kernel does wrong comes back as a [`Fault`] with the line of the PTX and of the CUDA source: accesses out of
//! bounds, misaligned, or of bytes that nothing wrote; races in shared memory; a missing proxy fence; registers of a
//! `wgmma` in flight; misuse of memory barrier objects; deadlocks; and, where [`Memory::set_in_flight`] says what earlier
//! launches may still use, accesses that `griddepcontrol.wait` does not order behind them.
//!
//! Not seen: races between lanes of one warp, races in global memory, registers that nothing wrote, caches and time.
//! Every access takes effect in order, so fences between threads matter only where a proxy changes. Approximate
//! functions (`ex2`, `rsqrt`, …) are rounded correctly, and tensor-core sums are rounded once per instruction
//! unless [`Options::accumulator`] says otherwise, so hardware may differ in the last bits.
//!
//! ```
//! use fireq_sim::{Launch, Memory, Module, Options, Params, run};
//!
//! let ptx = "
//!     .version 8.0
//!     .target sm_90a
//!     .address_size 64
//!     .visible .entry twice(.param .u64 out) {
//!         .reg .b32 %r<3>;
//!         .reg .b64 %rd<3>;
//!         ld.param.u64 %rd1, [out];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd1, %rd1, %rd2;
//!         add.s32 %r2, %r1, %r1;
//!         st.global.u32 [%rd1], %r2;
//!         ret;
//!     }";
//! let module = Module::parse(ptx)?;
//! let mut memory = Memory::new();
//! let out = memory.alloc("out", 4 * 32);
//! let launch = Launch {
//!     kernel: "twice".into(),
//!     grid: [1, 1, 1],
//!     block: [32, 1, 1],
//!     cluster: [1, 1, 1],
//!     dynamic_shared: 0,
//!     params: Params::new().u64(out).build(),
//! };
//! let stats = run(&module, &launch, &mut memory, &Options::default())?;
//! assert_eq!(memory.read(out + 12, 4)?, [6, 0, 0, 0]);
//! assert_eq!(stats.instructions, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod decode;
mod fault;
mod flow;
mod in_flight;
mod launch;
mod machine;
mod mbarrier;
mod memory;
mod number;
mod op;
mod operand;
mod product;
mod program;
mod ptx;
mod readers;
mod shared;
mod stats;
mod tensor_map;
mod tile;
mod types;

pub use fault::{Fault, FaultKind, Position, Waiting};
pub use in_flight::InFlight;
pub use launch::{Accumulator, Launch, Options, Params, Timing, run};
pub use memory::Memory;
pub use program::Module;
pub use ptx::ParseError;
pub use stats::{Classes, Stats};
pub use tensor_map::{Swizzle, TensorMap, TensorMapError};
