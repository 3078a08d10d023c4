#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"
#include "ptx/wgmma.cuh"
#include "tile/chunk.cuh"
#include "tile/linear_fp8.cuh"
#include "tile/raster.cuh"
#include "mainloop/fp8.cuh"
#include "epilogue/linear.cuh"

// x · weightᵀ with weights that were decoded to FP8 before (FireQ section 7): as many CTAs as run at a time, or fewer, and
// each takes one tile after another.

namespace fireq::linear_fp8 {

struct Params {
    TensorMap x;                  // [tokens, cols] E4M3 in tiles of SHARE × 128, swizzled
    TensorMap weight;             // [rows, cols] E4M3, both rounded up to 128, in boxes of 64 or CHANNELS × 128, swizzled
    const float* token_scales;    // [tokens]
    const float* channel_scales;  // one for each row of the weight
    const void* addend;           // [channels] or [tokens, channels], as the epilogue has it
    void* out;                    // [tokens, channels]
    u32 tokens;
    u32 channels;  // of the output: a multiple of what the epilogue writes at once
    u32 steps;     // of 128 numbers of K
    u32 band;      // token tiles that are multiplied with all channels before others are
};

/// Writes the sums of a warpgroup's 64 channels, or of both where outputs are made of two. They go through a few rows of
/// shared memory of their own, so that whole rows are written, and addends read, in 16 bytes at a time, while the ring fills
/// for the next tile: straight from registers eight neighbours would go out at a time, and every instruction would touch four
/// times as many rows.
template <typename Tile, typename Epilogue>
struct Fp8Output {
    using Addend = typename Epilogue::Addend;
    static constexpr int OPERANDS = Epilogue::OPERANDS, AT_ONCE = Epilogue::AT_ONCE, READ = at_once(AT_ONCE);
    static_assert(OPERANDS == 1 || !Tile::ALTERNATES, "two warpgroups have what an output is made of, and meet");
    /// Threads that write together, and their share of a chunk's rows.
    static constexpr u32 WRITERS = WARPGROUP * OPERANDS, COLUMNS = 64 / AT_ONCE;
    static constexpr u32 ROWS_AT_ONCE = WRITERS / COLUMNS, ROWS = Tile::CHUNK / ROWS_AT_ONCE;
    /// Chunks whose residuals are on their way, while others are written. Threads that read fewer neighbours have more rows, whose
    /// places take registers, too.
    static constexpr u32 AHEAD = Addend::OF_OUTPUTS ? (AT_ONCE < 4 ? 2 : 4) : 0;
    using Rows = float[ROWS][AT_ONCE];

    const Fp8Memory<Tile>& memory;
    const LinearOutput& output;
    u32 token;
    u32 channel;
    /// Of this thread's outputs, and of tokens of which it is the one to know.
    Channels<Epilogue> channel_scales;
    float bias[AT_ONCE];
    float token_scales[(Tile::TOKENS + WARPGROUP - 1) / WARPGROUP];

    static __device__ u32 warpgroup() { return threadIdx.x / WARPGROUP; }
    static __device__ u32 thread() { return threadIdx.x % WARPGROUP; }
    static __device__ u32 row() { return threadIdx.x % WRITERS / COLUMNS; }
    static __device__ u32 column() { return threadIdx.x % COLUMNS * AT_ONCE; }

    /// Whether this thread's n-th row of a chunk is there, and its place in the output.
    __device__ bool exists(u32 chunk, u32 n) const {
        return channel + column() < output.channels && token + row() + chunk * Tile::CHUNK + n * ROWS_AT_ONCE < output.tokens;
    }
    __device__ u64 place(u32 chunk, u32 n) const {
        u64 first = static_cast<u64>(token + row()) * output.channels + channel + column();
        return first + (chunk * Tile::CHUNK + n * ROWS_AT_ONCE) * static_cast<u64>(output.channels);
    }

    __device__ void ask_factors() {
        // This thread's outputs, or others where it has none.
        u32 known = min(channel + column(), output.channels - AT_ONCE);
        load_scales<Epilogue>(output, known, channel_scales);
        if constexpr (Addend::OF_CHANNELS) Addend::load(output.addend, 0, known, bias);
#pragma unroll
        for (u32 n = 0; n < Tile::TOKENS; n += WARPGROUP) {
            token_scales[n / WARPGROUP] = output.token_scales[min(token + n + thread(), output.tokens - 1)];
        }
    }

    /// The residual of this thread's rows of a chunk.
    __device__ void ask_residual(u32 chunk, Rows& rows) const {
#pragma unroll
        for (u32 n = 0; n < ROWS; ++n) {
#pragma unroll
            for (u32 i = 0; i < AT_ONCE; ++i) rows[n][i] = 0.0f;
            if (exists(chunk, n)) Addend::load(output.addend, place(chunk, n), 0, rows[n]);
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

    __device__ void write(u32 chunk, const Rows& residual) const {
#pragma unroll
        for (u32 n = 0; n < ROWS; ++n) {
            Channels<Epilogue> sums;
            float token_scale = 0.0f;
#pragma unroll
            for (u32 operand = 0; operand < OPERANDS; ++operand) {
                const float* from = memory.staged(OPERANDS == 1 ? warpgroup() : operand, chunk % 2) +
                                    (row() + n * ROWS_AT_ONCE) * Tile::STAGED_ROW;
#pragma unroll
                for (u32 i = 0; i < AT_ONCE; i += READ) read_neighbours<READ>(from + column() + i, &sums[operand][i]);
                if (operand == 0) token_scale = from[Tile::SCALE_AT];
            }
            if (!exists(chunk, n)) continue;
            const float(&added)[AT_ONCE] = Addend::OF_OUTPUTS ? residual[n] : bias;
            write_outputs<Epilogue>(output, place(chunk, n), sums, channel_scales, token_scale, added);
        }
    }

    /// A buffer is written while the other is read, and again only behind the barrier that follows its reads.
    __device__ void run(const float (&sums)[Tile::TOKENS / 2]) const {
        Rows residual[AHEAD + 1];
#pragma unroll
        for (u32 chunk = 0; chunk < AHEAD; ++chunk) ask_residual(chunk, residual[chunk]);
#pragma unroll
        for (u32 chunk = 0; chunk < Tile::CHUNKS; ++chunk) {
            u32 ahead = chunk + AHEAD;
            if (Addend::OF_OUTPUTS && ahead < Tile::CHUNKS) ask_residual(ahead, residual[ahead % (AHEAD + 1)]);
            stage(chunk, memory.staged(warpgroup(), chunk % 2), sums);
            if constexpr (OPERANDS == 1) {
                synchronize_four_warps(1 + warpgroup());
            } else {
                synchronize_first<Tile::CONSUMERS>();
            }
            write(chunk, residual[chunk % (AHEAD + 1)]);
        }
    }
};

/// Calls `visit` with the first token and output channel of every tile of this CTA.
template <typename Tile, typename Epilogue, typename Visit>
__device__ inline void visit_tiles(const Params& p, u32 rank, Visit visit) {
    for_each_tile<Tile>(p.tokens, p.channels, Epilogue::template channels<Tile>(), p.band, rank, visit);
}

/// What the threads behind the consumers do.
template <typename Tile, typename Epilogue>
__device__ inline void load(const Fp8Memory<Tile>& memory, const Params& p, u32 rank) {
    give_registers_up_to<Tile::PRODUCER_REGISTERS>();
    if (threadIdx.x != Tile::CONSUMERS) return;
    // Weights, too: an earlier launch decodes them.
    wait_for_earlier_launches();
    Fp8Source<Tile, Epilogue::OPERANDS> source{memory, p.x, p.weight, rank, Epilogue::rows_apart(p.channels)};
    visit_tiles<Tile, Epilogue>(p, rank, [&](u32 token, u32 channel) {
        source.ask(static_cast<i32>(token), static_cast<i32>(channel), p.steps);
    });
}

/// What consumers do.
template <typename Tile, typename Epilogue>
__device__ inline void compute(const Fp8Memory<Tile>& memory, const Params& p, u32 rank) {
    take_registers_up_to<Tile::CONSUMER_REGISTERS>();
    wait_for_earlier_launches();
    let_later_launches_begin();
    LinearOutput output{p.token_scales, p.channel_scales, p.addend, p.out, p.tokens, p.channels};
    Fp8Products<Tile> products{memory};
    u32 warpgroup = threadIdx.x / WARPGROUP, turn = 0;
    // The first output of this warpgroup's 64 rows.
    u32 own = Tile::ALTERNATES || Epilogue::OPERANDS == 2 ? 0 : warpgroup * 64;
    visit_tiles<Tile, Epilogue>(p, rank, [&](u32 token, u32 channel) {
        if (Tile::ALTERNATES && turn++ % Tile::WARPGROUPS != warpgroup) return products.ring.skip(p.steps);
        float sums[Tile::TOKENS / 2];
        Fp8Output<Tile, Epilogue> out{memory, output, token, channel + own};
        // Two sets of sums leave no registers for what can be had later.
        if constexpr (Tile::PROMOTION == 0) out.ask_factors();
        products.run(p.steps, sums);
        if constexpr (Tile::PROMOTION > 0) out.ask_factors();
        out.run(sums);
    });
    // A CTA's barriers live until those who share its tokens have let go of the last.
    if constexpr (Tile::CLUSTER > 1) synchronize_cluster();
}

template <typename Tile, typename Epilogue>
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
        load<Tile, Epilogue>(memory, p, rank);
    } else {
        compute<Tile, Epilogue>(memory, p, rank);
    }
}

}  // namespace fireq::linear_fp8
