//! How a kernel is launched: what code generators decide, and what the runtime and the simulator are told.

use serde::{Deserialize, Serialize};

/// Sizes of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchShape {
    /// CTAs in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA in x, y and z.
    pub block: [u32; 3],
    /// CTAs of a cluster in x, y and z, as the kernel declares them; ones where it declares none.
    pub cluster: [u32; 3],
    /// Bytes of shared memory beside what the kernel declares.
    pub dynamic_shared: u32,
}

impl LaunchShape {
    /// A row of `ctas` CTAs of `threads` threads, with no clusters and no dynamic shared memory.
    pub fn row(ctas: u32, threads: u32) -> Self {
        LaunchShape { grid: [ctas, 1, 1], block: [threads, 1, 1], cluster: [1; 3], dynamic_shared: 0 }
    }
}

/// How TMA permutes 16-byte chunks of a row in shared memory, by the span of its pattern in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Swizzle {
    None,
    B32,
    B64,
    B128,
}

/// What a TMA descriptor says of a tensor in global memory (PTX ISA, "tensor-map"); dimensions run from the innermost
/// outwards, of which there are 1 to 5.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMapShape {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element: u32,
    /// Elements of each dimension.
    pub sizes: Vec<u64>,
    /// Bytes from one index to the next, of each dimension but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements that one copy moves, in each dimension.
    pub tile: Vec<u32>,
    /// The order in shared memory.
    pub swizzle: Swizzle,
}
