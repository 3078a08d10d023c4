#pragma once
#include "tile/chunk.cuh"
#include "tile/reduce.cuh"

// The column of the largest number of each row, the lowest among equals: one CTA for a row.

namespace fireq::argmax {

struct Params {
    const float* x;  // [rows, COLS], finite
    i32* index;      // [rows]
};

/// A key that orders as the numbers do, and among equal ones the earlier column first. Both zeros are one number.
__device__ inline u64 key(float x, int column) {
    u32 bits = bits_of_float(x + 0.0f);
    u32 ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<u64>(ordered) << 32 | (0xffffffffu - static_cast<u32>(column));
}

template <int COLS, int THREADS, int CHUNK>
__device__ inline void run(const Params& p) {
    static_assert(COLS % CHUNK == 0, "a row is whole chunks");
    __shared__ u64 shared[THREADS / WARP];
    const float* row = p.x + static_cast<i64>(blockIdx.x) * COLS;
    u64 best = 0;
#pragma unroll 4
    for (int column = static_cast<int>(threadIdx.x) * CHUNK; column < COLS; column += THREADS * CHUNK) {
        float x[CHUNK];
        load_chunk(row + column, x);
#pragma unroll
        for (int n = 0; n < CHUNK; ++n) best = Largest::of(best, key(x[n], column + n));
    }
    best = reduce_cta<Largest, THREADS>(best, shared);
    if (threadIdx.x == 0) p.index[blockIdx.x] = static_cast<i32>(0xffffffffu - static_cast<u32>(best));
}

}  // namespace fireq::argmax
