#pragma once
#include "mainloop/dot.cuh"
#include "tile/reduce.cuh"

// x · weightᵀ for float weights and few tokens: a warp for ROWS output channels and TOKENS tokens. Each weight is read
// once per TOKENS tokens.

namespace fireq::logits {

struct Params {
    const float* x;      // [tokens, COLS]
    const void* weight;  // [channels, COLS]
    float* out;          // [tokens, channels]
    u32 tokens;
    u32 channels;
};

template <typename W, int COLS, int THREADS, int CHUNK, int ROWS, int TOKENS>
__device__ inline void run(const Params& p) {
    u32 first = (blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP) * ROWS;
    u32 token = blockIdx.y * TOKENS;
    if (first >= p.channels) return;
    const W* w[ROWS];
    const float* x[TOKENS];
    float sums[ROWS][TOKENS] = {};
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        w[r] = static_cast<const W*>(p.weight) + static_cast<i64>(min(first + r, p.channels - 1)) * COLS;
    }
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) x[t] = p.x + static_cast<i64>(min(token + t, p.tokens - 1)) * COLS;
    dot_rows<COLS, CHUNK>(w, x, sums);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
            float sum = reduce_lanes<Sum, WARP>(sums[r][t]);
            bool wanted = first + r < p.channels && token + t < p.tokens;
            if (threadIdx.x % WARP == 0 && wanted) p.out[static_cast<i64>(token + t) * p.channels + first + r] = sum;
        }
    }
}

}  // namespace fireq::logits
