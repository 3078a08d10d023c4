#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

// Reductions over lanes and over CTAs. Their order is fixed, so that results are the same on every run.

namespace fireq {

struct Sum {
    template <typename T>
    static __device__ T of(T a, T b) {
        return a + b;
    }
};

struct Largest {
    template <typename T>
    static __device__ T of(T a, T b) {
        return a > b ? a : b;
    }
};

/// The reduction over each aligned group of `LANES` lanes, in every lane. Every lane of the warp takes part.
template <typename How, int LANES, typename T>
__device__ inline T reduce_lanes(T x) {
    static_assert(LANES >= 1 && LANES <= WARP && (LANES & (LANES - 1)) == 0, "groups of lanes are powers of two");
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2) x = How::of(x, exchange(x, mask));
    return x;
}

/// The reduction over a CTA of `THREADS` threads, in every thread. `shared` has a place for each warp, is free when
/// this is called, and is not to be written before the CTA has synchronized again.
template <typename How, int THREADS, typename T>
__device__ inline T reduce_cta(T x, T* shared) {
    static_assert(THREADS % WARP == 0 && THREADS <= 1024, "CTAs are whole warps, at most 32");
    constexpr int WARPS = THREADS / WARP;
    x = reduce_lanes<How, WARP>(x);
    if constexpr (WARPS == 1) return x;
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
    synchronize();
    x = shared[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) x = How::of(x, shared[warp]);
    return x;
}

}  // namespace fireq
