#pragma once
#include "tile/chunk.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"

// Products of rows by one warp: lanes take neighbouring chunks, so that a step reads 512 neighbouring bytes of a weight.

namespace fireq {

/// Adds this lane's part of `x[t] · w[r]` to `sums[r][t]`. Rows of `w` and of `x` are `COLS` long; a row of either beyond
/// the last reads the last again, and its sum means nothing.
template <int COLS, int CHUNK, int ROWS, int TOKENS, typename W>
__device__ inline void dot_rows(const W* const (&w)[ROWS], const float* const (&x)[TOKENS], float (&sums)[ROWS][TOKENS]) {
    static_assert(COLS % CHUNK == 0, "a row is whole chunks");
    for (int column = static_cast<int>(threadIdx.x) % WARP * CHUNK; column < COLS; column += WARP * CHUNK) {
        float weights[ROWS][CHUNK];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) load_chunk(w[r] + column, weights[r]);
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
            float values[CHUNK];
            load_chunk(x[t] + column, values);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int n = 0; n < CHUNK; ++n) sums[r][t] = multiply_add(weights[r][n], values[n], sums[r][t]);
            }
        }
    }
}

}  // namespace fireq
