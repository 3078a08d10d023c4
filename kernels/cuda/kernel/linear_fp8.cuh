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

/// Writes the sums of a warpgroup's 64 channels. They go through a few rows of shared memory of their own, so that whole rows of
/// 256 bytes are written, and addends read, in 16 bytes at a time, while the ring fills for the next tile: straight from
/// registers eight neighbours would go out at a time, and every instruction would touch four times as many rows.
template <typename Tile, typename Addend>
struct Fp8Output {
    static constexpr u32 QUADS = 64 / 4, ROWS_AT_ONCE = WARPGROUP / QUADS, ROWS = Tile::CHUNK / ROWS_AT_ONCE;
    static constexpr bool ADDS_BIAS = same<Addend, Bias>, ADDS_RESIDUAL = same<Addend, Residual>;
    /// Chunks whose residuals are on their way, while others are written.
    static constexpr u32 AHEAD = ADDS_RESIDUAL ? 4 : 0;

    const Fp8Memory<Tile>& memory;
    const LinearOutput& output;
    u32 token;
    u32 channel;
    /// Of this thread's four channels, and of tokens of which it is the one to know.
    float channel_scales[4];
    float bias[4];
    float token_scales[(Tile::TOKENS + WARPGROUP - 1) / WARPGROUP];

    static __device__ u32 thread() { return threadIdx.x % WARPGROUP; }
    static __device__ u32 row() { return thread() / QUADS; }
    __device__ u32 quad() const { return channel + thread() % QUADS * 4; }
    /// Its four channels, or others where it has none.
    __device__ u32 known_quad() const { return min(quad(), output.channels - 4); }

    /// Whether this thread's n-th row of a chunk is there, and its place in the output.
    __device__ bool exists(u32 chunk, u32 n) const {
        return quad() < output.channels && token + row() + chunk * Tile::CHUNK + n * ROWS_AT_ONCE < output.tokens;
    }
    __device__ u64 place(u32 chunk, u32 n) const {
        u64 first = static_cast<u64>(token + row()) * output.channels + quad();
        return first + (chunk * Tile::CHUNK + n * ROWS_AT_ONCE) * static_cast<u64>(output.channels);
    }

    __device__ void ask_factors() {
        load_chunk(output.channel_scales + known_quad(), channel_scales);
        if constexpr (ADDS_BIAS) load_chunk(static_cast<const float*>(output.addend) + known_quad(), bias);
#pragma unroll
        for (u32 n = 0; n < Tile::TOKENS; n += WARPGROUP) {
            token_scales[n / WARPGROUP] = output.token_scales[min(token + n + thread(), output.tokens - 1)];
        }
    }

    /// The residual of this thread's rows of a chunk. Ordinary loads stay in front of the barrier behind them, which the
    /// assembler moves those of read-only memory across, next to their use.
    __device__ void ask_residual(u32 chunk, float4 (&rows)[ROWS]) const {
#pragma unroll
        for (u32 n = 0; n < ROWS; ++n) {
            rows[n] = {};
            if (exists(chunk, n)) rows[n] = *reinterpret_cast<const float4*>(static_cast<const float*>(output.addend) + place(chunk, n));
        }
    }

    __device__ void stage(u32 chunk, float* staged, const float (&sums)[Tile::TOKENS / 2]) const {
        u32 lane = thread() % WARP;
        float* own = staged + lane % 4 * 2 * Tile::STAGED_ROW + thread() / WARP * 16 + lane / 4;
#pragma unroll
        for (u32 n = 0; n < Tile::CHUNK / 2; ++n) {
            own[(n / 4 * 8 + n % 2) * Tile::STAGED_ROW + n / 2 % 2 * 8] = sums[chunk * Tile::CHUNK / 2 + n];
        }
        if (thread() / Tile::CHUNK == chunk * Tile::CHUNK % WARPGROUP / Tile::CHUNK) {
            staged[thread() % Tile::CHUNK * Tile::STAGED_ROW + Tile::SCALE_AT] =
                token_scales[chunk * Tile::CHUNK / WARPGROUP];
        }
    }

    __device__ void write(u32 chunk, const float* staged, const float4 (&residual)[ROWS]) const {
#pragma unroll
        for (u32 n = 0; n < ROWS; ++n) {
            const float* from = staged + (row() + n * ROWS_AT_ONCE) * Tile::STAGED_ROW;
            float4 four = *reinterpret_cast<const float4*>(from + thread() % QUADS * 4);
            float y[4] = {four.x, four.y, four.z, four.w}, scale = from[Tile::SCALE_AT];
            const float r4[4] = {residual[n].x, residual[n].y, residual[n].z, residual[n].w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                y[i] = y[i] * channel_scales[i] * scale;
                if constexpr (ADDS_BIAS) y[i] += bias[i];
                if constexpr (ADDS_RESIDUAL) y[i] = r4[i] + y[i];
            }
            if (exists(chunk, n)) store_chunk(static_cast<float*>(output.out) + place(chunk, n), y);
        }
    }

    /// A buffer is written while the other is read, and again only behind the barrier that follows its reads.
    __device__ void run(const float (&sums)[Tile::TOKENS / 2]) const {
        u32 warpgroup = threadIdx.x / WARPGROUP;
        float4 residual[AHEAD + 1][ROWS];
#pragma unroll
        for (u32 chunk = 0; chunk < AHEAD; ++chunk) ask_residual(chunk, residual[chunk]);
#pragma unroll
        for (u32 chunk = 0; chunk < Tile::CHUNKS; ++chunk) {
            u32 ahead = chunk + AHEAD;
            if (ADDS_RESIDUAL && ahead < Tile::CHUNKS) ask_residual(ahead, residual[ahead % (AHEAD + 1)]);
            float* staged = memory.staged(warpgroup, chunk % 2);
            stage(chunk, staged, sums);
            synchronize_four_warps(1 + warpgroup);
            write(chunk, staged, residual[chunk % (AHEAD + 1)]);
        }
    }
};

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
        if (Tile::ALTERNATES && turn++ % Tile::WARPGROUPS != warpgroup) return products.ring.skip(p.steps);
        float sums[Tile::TOKENS / 2];
        Fp8Output<Tile, Addend> out{memory, output, token, channel + (Tile::ALTERNATES ? 0 : warpgroup * 64)};
        // Two sets of sums leave no registers for what can be had later.
        if constexpr (Tile::PROMOTION == 0) out.ask_factors();
        products.run(p.steps, sums);
        if constexpr (Tile::PROMOTION > 0) out.ask_factors();
        out.run(sums);
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
