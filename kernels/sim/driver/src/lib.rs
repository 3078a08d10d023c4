//! A CUDA driver whose GPU is [`fireq_sim`]: a shared library with the functions of `libcuda` that fireq calls. Programs
//! that find it under that name run their kernels on the simulator, so that whatever launches kernels is tested on
//! machines without a GPU: loading, memory, descriptors, launches, streams, events and errors.
//!
//! ```text
//! ln -s …/libsimcuda.so DIR/libcuda.so
//! LD_LIBRARY_PATH=DIR FIREQ_SIM_PTX=KERNELS:MORE_KERNELS program
//! ```
//!
//! A module is PTX, or a cubin whose PTX lies beside an equal `*.cubin` in, or one level below, a folder that
//! `FIREQ_SIM_PTX` lists. What the simulator finds wrong is printed; the error is the driver's for a kernel that failed, and, as
//! there, everything fails from then on.
//!
//! There is one stream. Its work waits until the host waits for it, which is as late as a GPU may begin: page-locked memory that
//! the host changes too soon, and results that it reads too soon, show. Work can be captured in graphs; calls that a capture does
//! not survive end it. Times are those of the simulator and say nothing about a GPU. Registers are not counted: attributes give 0.
//!
//! `FIREQ_SIM_MEMORY` says how many bytes of memory there are, 64 GiB otherwise. With `FIREQ_SIM_SKIP_KERNELS` kernels are
//! launched and not run, so that what takes time is what the host does. `fireq_sim_calls` counts calls.

mod abi;
mod device;
mod host;
mod image;
mod stream;

pub use device::NAME;
