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
#include "tile/linear.cuh"
#include "tile/raster.cuh"
#include "tile/ring.cuh"
#include "mainloop/int4_fp8.cuh"
#include "epilogue/linear.cuh"

// x · weightᵀ with INT4 weights and FP8 tokens (FireQ section 7): a cluster for a tile of channels and tokens. Sums go through
// shared memory, so that rows of the output are written in 16 bytes at a time, and CTAs that shared out K add up what each has.

namespace fireq::linear {

struct Params {
    TensorMap x;                  // [tokens, cols] E4M3 in tiles of TOKENS × 128, swizzled
    const u8* records;            // [channels/64, cols/128] records of codes and scales
    const float* token_scales;    // [tokens]
    const float* channel_scales;  // one for each row of the weight
    const void* addend;           // [channels] or [tokens, channels], as the epilogue has it
    void* out;                    // [tokens, channels]
    u32 tokens;
    u32 channels;  // of the output: a multiple of what the epilogue writes at once
    u32 steps;     // of 128 numbers of K
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

/// `N` channels of staged sums, those of all CTAs of the tile, of which `first` is the first, added up in their order.
template <typename Tile, int N>
__device__ inline void gather_sums(const float* staged, u32 first, float* to) {
    if constexpr (Tile::SPLIT == 1) return read_neighbours<N>(staged, to);
    float y[N];
    load_remote(staged, first, y);
#pragma unroll
    for (u32 n = 1; n < Tile::SPLIT; ++n) {
        float part[N];
        load_remote(staged, first + n, part);
#pragma unroll
        for (int i = 0; i < N; ++i) y[i] += part[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = y[i];
}

/// Writes this CTA's share of a tile, whose first token and channel these are.
template <typename Tile, typename Epilogue>
__device__ inline void finish(const LinearMemory<Tile>& memory, const LinearOutput& output, u32 token, u32 channel,
                              u32 rank) {
    constexpr u32 AT_ONCE = Epilogue::AT_ONCE, COLUMNS = Epilogue::template channels<Tile>() / AT_ONCE;
    constexpr u32 THREADS = Tile::SPLIT * Tile::CONSUMERS, READ = at_once(AT_ONCE);
    u32 part = rank % Tile::SPLIT;
    for (u32 n = threadIdx.x + part * Tile::CONSUMERS; n < Tile::TOKENS * COLUMNS; n += THREADS) {
        u32 row = n / COLUMNS, column = n % COLUMNS * AT_ONCE;
        u32 t = token + row, c = channel + column;
        if (t >= output.tokens || c >= output.channels) continue;
        u64 at = static_cast<u64>(t) * output.channels + c;
        Channels<Epilogue> sums, scales;
        float added[AT_ONCE];
#pragma unroll
        for (u32 i = 0; i < Epilogue::OPERANDS * AT_ONCE; i += READ) {
            u32 operand = i / AT_ONCE, first = i % AT_ONCE;
            const float* staged = memory.sums() + row * Tile::SUM_ROW + operand * 64 + column + first;
            gather_sums<Tile, READ>(staged, rank - part, &sums[operand][first]);
        }
        load_scales<Epilogue>(output, c, scales);
        Epilogue::Addend::load(output.addend, at, c, added);
        write_outputs<Epilogue>(output, at, sums, scales, output.token_scales[t], added);
    }
}

/// Calls `visit` with the first token and channel of every tile of this CTA.
template <typename Tile, typename Epilogue, typename Visit>
__device__ inline void visit_tiles(const Params& p, u32 rank, Visit visit) {
    constexpr u32 CHANNELS = Epilogue::template channels<Tile>();
    if constexpr (Tile::BAND > 0) {
        for_each_tile<Tile>(p.tokens, p.channels, CHANNELS, Tile::BAND, rank, visit);
    } else {
        visit(blockIdx.y * Tile::TOKENS, blockIdx.x / Tile::SPLIT * CHANNELS);
    }
}

/// What the threads behind the consumers do.
template <typename Tile, typename Epilogue>
__device__ inline void load(const LinearMemory<Tile>& memory, const Params& p, u32 first, u32 end, u32 rank) {
    if constexpr (Tile::TRADES_REGISTERS) give_registers_up_to<Tile::PRODUCER_REGISTERS>();
    if (threadIdx.x != Tile::CONSUMERS) return;
    u64 row_records = static_cast<u64>(p.steps) * Tile::RECORD;
    u64 apart = Epilogue::rows_apart(p.channels) / 64 * row_records;
    Ring<Tile::STAGES> ring;
    bool begun = false;
    visit_tiles<Tile, Epilogue>(p, rank, [&](u32 token, u32 channel) {
        // The last CTAs of a cluster may have no channels: they ask for tokens of the others, and multiply them by any weights.
        u32 held = Tile::CLUSTER == 1 || channel < p.channels ? channel : 0;
        const u8* records = p.records + held / 64 * row_records;
        u32 ahead = first;
        if (!begun) {
            ahead = ask_ahead(memory, records, apart, first, end);
            wait_for_earlier_launches();
            begun = true;
        }
        produce(memory, ring, p.x, records, apart, static_cast<i32>(token), {first, ahead, end}, rank);
    });
}

/// What consumers do with a tile.
template <typename Tile, typename Epilogue>
__device__ inline void compute(const LinearMemory<Tile>& memory, Ring<Tile::STAGES>& ring, const Params& p, u32 token,
                               u32 channel, u32 steps, u32 rank) {
    float sums[Tile::TOKENS / 2] = {};
    consume<Tile>(memory, ring, steps, rank, sums);
    // Sums take the place of the last steps' bytes, or of the last tile's.
    synchronize_first<Tile::CONSUMERS>();
    stage_sums<Tile>(memory, sums);
    // A CTA's barriers live until those that share its tokens have let go of the last.
    if constexpr (Tile::CTAS > 1 && Tile::BAND == 0) {
        synchronize_cluster();
    } else {
        synchronize_first<Tile::CONSUMERS>();
    }
    LinearOutput output{p.token_scales, p.channel_scales, p.addend, p.out, p.tokens, p.channels};
    finish<Tile, Epilogue>(memory, output, token, channel, rank);
}

template <typename Tile, typename Epilogue>
__device__ inline void run(const Params& p) {
    extern __shared__ __align__(1024) u8 shared[];
    LinearMemory<Tile> memory{shared};
    u32 rank = Tile::CTAS > 1 ? cluster_rank() : 0, part = rank % Tile::SPLIT;
    u32 first = part * p.steps / Tile::SPLIT, end = (part + 1) * p.steps / Tile::SPLIT;
    if (threadIdx.x == 0) initialize(memory);
    // Nobody copies to a CTA before its barriers are ready.
    if constexpr (Tile::CLUSTER > 1) {
        synchronize_cluster();
    } else {
        synchronize();
    }
    if (threadIdx.x >= Tile::CONSUMERS) return load<Tile, Epilogue>(memory, p, first, end, rank);
    if constexpr (Tile::TRADES_REGISTERS) take_registers_up_to<Tile::CONSUMER_REGISTERS>();
    wait_for_earlier_launches();
    let_later_launches_begin();
    Ring<Tile::STAGES> ring;
    visit_tiles<Tile, Epilogue>(p, rank, [&](u32 token, u32 channel) {
        compute<Tile, Epilogue>(memory, ring, p, token, channel, end - first, rank);
    });
    // A CTA's shared memory lives until the others have read its sums, and its barriers until they have arrived.
    if constexpr (Tile::SPLIT > 1 || (Tile::CLUSTER > 1 && Tile::BAND > 0)) synchronize_cluster();
}

}  // namespace fireq::linear
