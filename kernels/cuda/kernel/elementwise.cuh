#pragma once
#include "tile/chunk.cuh"
#include "ptx/launch.cuh"
#include "ptx/math.cuh"

// One expression for every element of a matrix. `Body::apply` takes an element of `a` and one of `b`; `b` is a matrix
// of the same shape, or with CHANNELS a vector that every row shares.

namespace fireq::elementwise {

struct Params {
    const float* a;  // [rows, COLS]
    const void* b;   // [rows, COLS], or [COLS]
    float* out;      // [rows, COLS]
    u64 elements;    // rows·COLS
};

template <typename Body, typename T, int COLS, bool CHANNELS, int THREADS, int CHUNK>
__device__ inline void run(const Params& p) {
    static_assert(COLS % CHUNK == 0, "a row is whole chunks");
    u64 at = (static_cast<u64>(blockIdx.x) * THREADS + threadIdx.x) * CHUNK;
    if (at >= p.elements) return;
    wait_for_earlier_launches();
    let_later_launches_begin();
    float a[CHUNK], b[CHUNK];
    load_chunk(p.a + at, a);
    load_chunk(static_cast<const T*>(p.b) + (CHANNELS ? at % COLS : at), b);
#pragma unroll
    for (int n = 0; n < CHUNK; ++n) a[n] = Body::apply(a[n], b[n]);
    store_chunk(p.out + at, a);
}

}  // namespace fireq::elementwise
