#pragma once
#include "ptx/launch.cuh"
#include "mainloop/dot.cuh"
#include "tile/reduce.cuh"

// x · weightᵀ for float weights, or E4M3 ones with a scale for each channel, and few tokens: a warp for ROWS output channels and TOKENS tokens. Each weight is read
// once per TOKENS tokens. The last warp shares channels with the one before it where they are no multiple of ROWS; both
// write the same numbers.

namespace fireq::logits {

struct Params {
    const float* x;      // [tokens, COLS]
    const void* weight;  // [channels, COLS]
    const float* scales;  // [channels], of E4M3 weights
    float* out;          // [tokens, channels]
    u32 tokens;
    u32 channels;
};

template <typename W, int COLS, int THREADS, int CHUNK, int ROWS, int TOKENS>
__device__ inline void run(const Params& p) {
    u32 first = (blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP) * ROWS;
    u32 token = blockIdx.y * TOKENS;
    if (first >= p.channels) return;
    first = min(first, p.channels - ROWS);
    int tokens = static_cast<int>(p.tokens - token);
    float sums[ROWS][TOKENS] = {};
    const W* w = static_cast<const W*>(p.weight) + static_cast<i64>(first) * COLS;
    wait_for_earlier_launches();
    let_later_launches_begin();
    dot_rows<COLS, CHUNK>(w, p.x + static_cast<i64>(token) * COLS, tokens, sums);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        float scale = 1.0f;
        if constexpr (same<W, e4m3>) scale = p.scales[first + r];
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
            float sum = reduce_lanes<Sum, WARP>(sums[r][t]);
            if constexpr (same<W, e4m3>) sum = sum * scale;
            if (threadIdx.x % WARP == 0 && t < tokens) p.out[static_cast<i64>(token + t) * p.channels + first + r] = sum;
        }
    }
}

}  // namespace fireq::logits
