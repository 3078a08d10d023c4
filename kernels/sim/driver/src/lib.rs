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
//! `FIREQ_SIM_PTX` lists. What the simulator finds wrong is printed; the launch's error is the driver's for a kernel that
//! failed, and, as there, everything fails from then on. Launches are done when they return, streams and events therefore
//! trivial; times are those of the simulator and say nothing about a GPU. Registers are not counted: attributes give 0.

mod abi;
mod device;
mod image;

pub use device::NAME;
