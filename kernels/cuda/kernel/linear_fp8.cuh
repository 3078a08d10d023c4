#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"
#include "ptx/wgmma.cuh"
#include "tile/linear_fp8.cuh"
#include "mainloop/fp8.cuh"
#include "epilogue/linear.cuh"

// x · weightᵀ with weights that were decoded to FP8 before (FireQ section 7): as many CTAs as run at a time, or fewer, and
// each takes one tile after another.

namespace fireq::linear_fp8 {

struct Params {
    TensorMap x;                  // [tokens, cols] E4M3 in tiles of SHARE × 128, swizzled
    TensorMap weight;             // [channels, cols] E4M3, both rounded up to 128, in tiles of CHANNELS × 128, swizzled
    const float* token_scales;    // [tokens]
    const float* channel_scales;  // [channels]
    const float* addend;          // [channels] or [tokens, channels], as the epilogue has it
    float* out;                   // [tokens, channels]
    u32 tokens;
    u32 channels;  // a multiple of 4
    u32 steps;     // of 128 numbers of K
    u32 band;      // token tiles that are multiplied with all channels before others are
};

/// Calls `visit` with the first token and channel of every tile of this CTA, in order. CTAs of a cluster take neighbours in
/// channels at the same time; the last may have none that exist.
template <typename Tile, typename Visit>
__device__ inline void for_each_tile(const Params& p, u32 rank, Visit visit) {
    constexpr u32 CHANNELS = Tile::CHANNELS * Tile::CLUSTER;
    u32 channel_tiles = (p.channels + CHANNELS - 1) / CHANNELS;
    u32 token_tiles = (p.tokens + Tile::TOKENS - 1) / Tile::TOKENS;
    for (u32 n = blockIdx.x / Tile::CLUSTER; n < channel_tiles * token_tiles; n += gridDim.x / Tile::CLUSTER) {
        TilePlace place = tile_place(n, channel_tiles, token_tiles, p.band);
        visit(place.tokens * Tile::TOKENS, place.channels * CHANNELS + rank * Tile::CHANNELS);
    }
}

/// Writes the sums of a warpgroup's 64 channels, whose first this is. They go through a few rows of shared memory of their own,
/// so that whole rows of 256 bytes are written, and addends read, in 16 bytes at a time, while the ring fills for the next
/// tile. Rows are written behind the barrier, and into the buffer that was read before the last one.
template <typename Tile, typename Addend>
__device__ inline void write(const Fp8Memory<Tile>& memory, const LinearOutput& output,
                             const float (&sums)[Tile::TOKENS / 2], u32 token, u32 channel) {
    constexpr u32 QUADS = 64 / 4, ROWS_AT_ONCE = WARPGROUP / QUADS;
    u32 warpgroup = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP, lane = thread % WARP;
    u32 own = lane % 4 * 2 * Tile::STAGED_ROW + thread / WARP * 16 + lane / 4;
    u32 quad = thread % QUADS * 4, c = channel + quad;
    bool exists = c < output.channels;
    float scales[4] = {};
    if (exists) load_four(output.channel_scales + c, scales);
#pragma unroll
    for (u32 first = 0; first < Tile::TOKENS; first += Tile::CHUNK) {
        float* staged = memory.staged(warpgroup, first / Tile::CHUNK % 2);
#pragma unroll
        for (u32 n = 0; n < Tile::CHUNK / 2; ++n) {
            staged[own + (n / 4 * 8 + n % 2) * Tile::STAGED_ROW + n / 2 % 2 * 8] = sums[first / 2 + n];
        }
        synchronize_four_warps(1 + warpgroup);
#pragma unroll
        for (u32 row = thread / QUADS; row < Tile::CHUNK; row += ROWS_AT_ONCE) {
            u32 t = token + first + row;
            if (!exists || t >= output.tokens) continue;
            float4 four = *reinterpret_cast<const float4*>(staged + row * Tile::STAGED_ROW + quad);
            float y[4] = {four.x, four.y, four.z, four.w}, scale = output.token_scales[t];
#pragma unroll
            for (int i = 0; i < 4; ++i) y[i] = y[i] * scales[i] * scale;
            u64 at = static_cast<u64>(t) * output.channels + c;
            Addend::apply(output.addend, at, c, y);
            store_four(output.out + at, y);
        }
    }
}

/// What the threads behind the consumers do.
template <typename Tile>
__device__ inline void load(const Fp8Memory<Tile>& memory, const Params& p, u32 rank) {
    give_registers_up_to<Tile::PRODUCER_REGISTERS>();
    if (threadIdx.x != Tile::CONSUMERS) return;
    Fp8Source<Tile> source{memory, p.x, p.weight, rank};
    for_each_tile<Tile>(p, rank, [&](u32 token, u32 channel) {
        source.ask(static_cast<i32>(token), static_cast<i32>(channel), p.steps);
    });
}

/// What consumers do.
template <typename Tile, typename Addend>
__device__ inline void compute(const Fp8Memory<Tile>& memory, const Params& p, u32 rank) {
    take_registers_up_to<Tile::CONSUMER_REGISTERS>();
    LinearOutput output{p.token_scales, p.channel_scales, p.addend, p.out, p.tokens, p.channels};
    Fp8Products<Tile> products{memory};
    u32 warpgroup = threadIdx.x / WARPGROUP, turn = 0;
    for_each_tile<Tile>(p, rank, [&](u32 token, u32 channel) {
        float sums[Tile::TOKENS / 2];
        if constexpr (Tile::ALTERNATES) {
            if (turn++ % Tile::WARPGROUPS != warpgroup) return products.ring.skip(p.steps);
            products.take_turn();
            products.run(p.steps, sums);
            products.give_turn();
            write<Tile, Addend>(memory, output, sums, token, channel);
        } else {
            products.run(p.steps, sums);
            write<Tile, Addend>(memory, output, sums, token, channel + warpgroup * 64);
        }
    });
    // A CTA's barriers live until those who share its tokens have let go of the last.
    if constexpr (Tile::CLUSTER > 1) synchronize_cluster();
}

template <typename Tile, typename Addend>
__device__ inline void run(const Params& p) {
    extern __shared__ __align__(1024) u8 shared[];
    Fp8Memory<Tile> memory{shared};
    u32 rank = Tile::CLUSTER > 1 ? cluster_rank() : 0;
    if (threadIdx.x == 0) initialize(memory);
    // Nobody arrives at a barrier, or copies to a CTA, before its barriers are ready.
    if constexpr (Tile::CLUSTER > 1) {
        synchronize_cluster();
    } else {
        synchronize();
    }
    if (threadIdx.x >= Tile::CONSUMERS) {
        load(memory, p, rank);
    } else {
        compute<Tile, Addend>(memory, p, rank);
    }
}

}  // namespace fireq::linear_fp8
