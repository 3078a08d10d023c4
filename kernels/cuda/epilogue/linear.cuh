#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/cluster.cuh"
#include "ptx/wgmma.cuh"
#include "tile/chunk.cuh"
#include "tile/linear.cuh"
#include "mainloop/int4_fp8.cuh"

// What becomes of a linear's sums: they go through shared memory, so that rows of the output are written in 16 bytes at a
// time, and CTAs that shared out K add up what each has, in the order of their ranks.

namespace fireq {

/// What outputs have added to them. `apply` takes four channels of a token, `at` their place in the output.
struct Nothing {
    static __device__ void apply(const void*, u64, u32, float (&)[4]) {}
};

/// A vector of channels in format `T`: y + bias.
template <typename T>
struct BiasOf {
    static __device__ void apply(const void* bias, u64, u32 channel, float (&y)[4]) {
        float b[4];
        load_chunk(static_cast<const T*>(bias) + channel, b);
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] += b[i];
    }
};

using Bias = BiasOf<float>;

/// A matrix of the output's shape: residual + y.
struct Residual {
    static __device__ void apply(const void* residual, u64 at, u32, float (&y)[4]) {
        float r[4];
        load_chunk(static_cast<const float*>(residual) + at, r);
#pragma unroll
        for (int i = 0; i < 4; ++i) y[i] = r[i] + y[i];
    }
};

/// Where outputs come from and go to.
struct LinearOutput {
    const float* token_scales;    // [tokens]
    const float* channel_scales;  // [channels], those of gates before those of what they gate
    const void* addend;           // what the epilogue adds
    void* out;                    // [tokens, channels]
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

/// Four channels of a token in their scales: those at `quad` of the tile's row, at `channel` of the weight.
template <typename Tile>
__device__ inline void scaled_sums(const LinearMemory<Tile>& memory, const LinearOutput& output, u32 row, u32 quad,
                                   float token_scale, u32 channel, float (&y)[4]) {
    float scales[4];
    gather_sums<Tile>(memory.sums() + row * Tile::SUM_ROW + quad, y);
    load_chunk(output.channel_scales + channel, scales);
#pragma unroll
    for (int i = 0; i < 4; ++i) y[i] = y[i] * scales[i] * token_scale;
}

/// Neighbouring outputs, 16 bytes of them.
__device__ inline void store_outputs(float* to, const float (&y)[4]) { store_chunk(to, y); }

__device__ inline void store_outputs(bf16* to, const float (&y)[8]) {
    u32 words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        words[i] = to_bf16(y[2 * i]).bits | static_cast<u32>(to_bf16(y[2 * i + 1]).bits) << 16;
    }
    store_words(to, words);
}

/// Writes this CTA's share of a tile, whose first token and channel these are. Channels are a multiple of what 16 bytes hold.
template <typename Tile, typename Addend, typename Out = float>
__device__ inline void finish(const LinearMemory<Tile>& memory, const LinearOutput& output, u32 token, u32 channel,
                              u32 rank) {
    constexpr u32 AT_ONCE = 16 / sizeof(Out);
    constexpr u32 CHUNKS = Tile::CHANNELS / AT_ONCE, THREADS = Tile::SPLIT * Tile::CONSUMERS;
    for (u32 n = threadIdx.x + rank * Tile::CONSUMERS; n < Tile::TOKENS * CHUNKS; n += THREADS) {
        u32 row = n / CHUNKS, first = n % CHUNKS * AT_ONCE;
        u32 t = token + row, c = channel + first;
        if (t >= output.tokens || c >= output.channels) continue;
        u64 at = static_cast<u64>(t) * output.channels + c;
        float scale = output.token_scales[t];
        float all[AT_ONCE];
#pragma unroll
        for (u32 quad = 0; quad < AT_ONCE; quad += 4) {
            float y[4];
            scaled_sums(memory, output, row, first + quad, scale, c + quad, y);
            Addend::apply(output.addend, at + quad, c + quad, y);
#pragma unroll
            for (int i = 0; i < 4; ++i) all[quad + i] = y[i];
        }
        store_outputs(static_cast<Out*>(output.out) + at, all);
    }
}

/// Outputs of format `Out`, a channel of the weight each.
template <typename Addend, typename Out>
struct Plain {
    template <typename Tile>
    static __device__ constexpr u32 channels() {
        return Tile::CHANNELS;
    }

    /// From the rows of one warpgroup to those of the next.
    static __device__ u32 rows_apart(u32) { return 64; }

    template <typename Tile>
    static __device__ void finish(const LinearMemory<Tile>& memory, const LinearOutput& output, u32 token, u32 channel,
                                  u32 rank) {
        fireq::finish<Tile, Addend, Out>(memory, output, token, channel, rank);
    }
};

/// Outputs that two channels of the weight make by `Body`: one of its first half, and the one as far into the second. The first
/// warpgroup has 64 of those, the second 64 of these.
template <typename Body>
struct Gated {
    template <typename Tile>
    static __device__ constexpr u32 channels() {
        static_assert(Tile::WARPGROUPS == 2, "one warpgroup has gates, one what they gate");
        return 64;
    }

    static __device__ u32 rows_apart(u32 channels) { return channels; }

    template <typename Tile>
    static __device__ void finish(const LinearMemory<Tile>& memory, const LinearOutput& output, u32 token, u32 channel,
                                  u32 rank) {
        constexpr u32 QUADS = 64 / 4, THREADS = Tile::SPLIT * Tile::CONSUMERS;
        for (u32 n = threadIdx.x + rank * Tile::CONSUMERS; n < Tile::TOKENS * QUADS; n += THREADS) {
            u32 row = n / QUADS, quad = n % QUADS * 4;
            u32 t = token + row, c = channel + quad;
            if (t >= output.tokens) continue;
            float scale = output.token_scales[t];
            float gate[4], up[4];
            scaled_sums(memory, output, row, quad, scale, c, gate);
            scaled_sums(memory, output, row, 64 + quad, scale, output.channels + c, up);
#pragma unroll
            for (int i = 0; i < 4; ++i) gate[i] = Body::apply(gate[i], up[i]);
            store_outputs(static_cast<float*>(output.out) + static_cast<u64>(t) * output.channels + c, gate);
        }
    }
};

}  // namespace fireq
