#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/cluster.cuh"
#include "ptx/wgmma.cuh"
#include "tile/linear.cuh"
#include "mainloop/int4_fp8.cuh"

// What becomes of a linear's sums: they go through shared memory, so that rows of the output are written in 16 bytes at a
// time, and CTAs that shared out K add up what each has, in the order of their ranks.

namespace fireq {

/// Four neighbouring numbers.
__device__ inline void load_four(const float* from, float (&to)[4]) {
    u32 words[4];
    load_words(from, words);
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = float_of_bits(words[i]);
}

__device__ inline void store_four(float* to, const float (&from)[4]) {
    store_words(to, {bits_of_float(from[0]), bits_of_float(from[1]), bits_of_float(from[2]), bits_of_float(from[3])});
}

/// What outputs have added to them. `apply` takes four channels of a token, `at` their place in the output.
struct Nothing {
    static __device__ void apply(const float*, u64, u32, float (&)[4]) {}
};

/// A vector of channels: y + bias.
struct Bias {
    static __device__ void apply(const float* bias, u64, u32 channel, float (&y)[4]) {
        float b[4];
        load_four(bias + channel, b);
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] += b[i];
    }
};

/// A matrix of the output's shape: residual + y.
struct Residual {
    static __device__ void apply(const float* residual, u64 at, u32, float (&y)[4]) {
        float r[4];
        load_four(residual + at, r);
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] = r[i] + y[i];
    }
};

/// Where outputs come from and go to.
struct LinearOutput {
    const float* token_scales;    // [tokens]
    const float* channel_scales;  // [channels]
    const float* addend;          // what the epilogue adds
    float* out;                   // [tokens, channels]
    u32 tokens;
    u32 channels;
};

/// Writes this warpgroup's sums, a row for each token.
template <typename Tile>
__device__ inline void stage_sums(const LinearMemory<Tile>& memory, const float (&sums)[Tile::TOKENS / 2]) {
    u32 thread = threadIdx.x % WARPGROUP, lane = thread % WARP;
    u32 channel = threadIdx.x / WARPGROUP * 64 + thread / WARP * 16 + lane / 4;
    float* to = memory.sums() + lane % 4 * 2 * Tile::SUM_ROW + channel;
#pragma unroll
    for (u32 n = 0; n < Tile::TOKENS / 8; ++n) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) to[(8 * n + i % 2) * Tile::SUM_ROW + i / 2 * 8] = sums[4 * n + i];
    }
}

/// Four channels of staged sums, those of all CTAs of the cluster added up.
template <typename Tile>
__device__ inline void gather_sums(const float* staged, float (&y)[4]) {
    if constexpr (Tile::SPLIT == 1) {
        float4 four = *reinterpret_cast<const float4*>(staged);
        y[0] = four.x, y[1] = four.y, y[2] = four.z, y[3] = four.w;
        return;
    }
    load_remote(staged, 0, y);
#pragma unroll
    for (u32 rank = 1; rank < Tile::SPLIT; ++rank) {
        float part[4];
        load_remote(staged, rank, part);
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] += part[i];
    }
}

/// Writes this CTA's share of a tile, whose first token and channel these are. Channels are a multiple of 4.
template <typename Tile, typename Addend>
__device__ inline void finish(const LinearMemory<Tile>& memory, const LinearOutput& output, u32 token, u32 channel,
                              u32 rank) {
    constexpr u32 QUADS = Tile::CHANNELS / 4, THREADS = Tile::SPLIT * Tile::CONSUMERS;
    for (u32 n = threadIdx.x + rank * Tile::CONSUMERS; n < Tile::TOKENS * QUADS; n += THREADS) {
        u32 row = n / QUADS, quad = n % QUADS * 4;
        u32 t = token + row, c = channel + quad;
        if (t >= output.tokens || c >= output.channels) continue;
        float y[4], scales[4];
        gather_sums<Tile>(memory.sums() + row * Tile::SUM_ROW + quad, y);
        load_four(output.channel_scales + c, scales);
        float scale = output.token_scales[t];
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] = y[i] * scales[i] * scale;
        u64 at = static_cast<u64>(t) * output.channels + c;
        Addend::apply(output.addend, at, c, y);
        store_four(output.out + at, y);
    }
}

}  // namespace fireq
