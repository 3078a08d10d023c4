#pragma once
#include "tile/chunk.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

// Products of rows by one warp: lanes take neighbouring chunks, so that a step reads 512 neighbouring bytes of a weight.

namespace fireq {

/// Adds this lane's part of `x[t] · w[r]` to `sums[r][t]`. Rows are `COLS` long; rows of `x` from `tokens` on read the last
/// again, and their sums mean nothing.
template <int COLS, int CHUNK, int ROWS, int TOKENS, typename W>
__device__ inline void dot_rows(const W* w, const float* x, int tokens, float (&sums)[ROWS][TOKENS]) {
    static_assert(COLS % CHUNK == 0, "a row is whole chunks");
    for (int column = static_cast<int>(threadIdx.x) % WARP * CHUNK; column < COLS; column += WARP * CHUNK) {
        float weights[ROWS][CHUNK];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) load_chunk<CONSTANT>(w + static_cast<i64>(r) * COLS + column, weights[r]);
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
            float values[CHUNK];
            load_chunk(x + static_cast<i64>(t < tokens ? t : tokens - 1) * COLS + column, values);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int n = 0; n < CHUNK; ++n) sums[r][t] = multiply_add(weights[r][n], values[n], sums[r][t]);
            }
        }
    }
}

}  // namespace fireq
