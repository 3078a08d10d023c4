#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/wgmma.cuh"
#include "ptx/wgmma_shared.cuh"
#include "ptx/wgmma_attention.cuh"
#include "tile/prefill.cuh"
#include "tile/ring.cuh"
#include "quant/probabilities.cuh"

// FP8 attention of a tile of queries over tiles of keys. While the tensor cores multiply the queries with the next tile of
// keys, and the probabilities of the tile before with its values, the other units do the softmax of this one.

namespace fireq {

/// Shared memory of prefill attention.
template <typename Tile>
struct PrefillMemory {
    u8* base;

    __device__ u8* queries(u32 warpgroup) const { return base + warpgroup * 64 * Tile::HEAD; }
    __device__ u8* keys(u32 stage) const { return base + Tile::KEYS_AT + stage * Tile::KEY_BYTES; }
    __device__ u8* values(u32 stage) const { return base + Tile::VALUES_AT + stage * Tile::VALUE_BYTES; }
    __device__ u64* barrier(u32 n) const { return reinterpret_cast<u64*>(base + Tile::BARRIERS_AT) + n; }
    __device__ u64* queries_full() const { return barrier(0); }
    __device__ u64* keys_full(u32 stage) const { return barrier(1 + stage); }
    __device__ u64* values_full(u32 stage) const { return barrier(1 + Tile::STAGES + stage); }
    __device__ u64* keys_empty(u32 stage) const { return barrier(1 + 2 * Tile::STAGES + stage); }
    __device__ u64* values_empty(u32 stage) const { return barrier(1 + 3 * Tile::STAGES + stage); }
};

template <typename Tile>
__device__ inline void initialize(const PrefillMemory<Tile>& memory) {
    initialize(memory.queries_full(), 1);
#pragma unroll
    for (u32 stage = 0; stage < Tile::STAGES; ++stage) {
        initialize(memory.keys_full(stage), 1);
        initialize(memory.values_full(stage), 1);
        initialize(memory.keys_empty(stage), Tile::CONSUMERS / 32);
        initialize(memory.values_empty(stage), Tile::CONSUMERS / 32);
    }
    publish_barriers();
}

/// The eight rows behind the values of every stage: ones, and zeros. A row is 128 equal bytes, which no swizzle changes.
template <typename Tile>
__device__ inline void write_ones(const PrefillMemory<Tile>& memory) {
    constexpr u32 ONES = 0x38383838;
    constexpr u32 WORDS = 8 * Tile::KEYS / 4;
    for (u32 n = threadIdx.x; n < Tile::STAGES * WORDS; n += Tile::THREADS) {
        u8* rows = memory.values(n / WORDS) + Tile::COPIED_VALUE_BYTES;
        reinterpret_cast<u32*>(rows)[n % WORDS] = n % WORDS < Tile::KEYS / 4 ? ONES : 0;
    }
    publish_writes();
}

/// What one thread asks for.
template <typename Tile>
__device__ inline void produce(const PrefillMemory<Tile>& memory, const TensorMap& q, const TensorMap& k, const TensorMap& v,
                               i32 query, i32 q_channel, i32 kv_channel, u32 tiles) {
    arrive_expecting(memory.queries_full(), Tile::QUERY_BYTES);
    copy_tile(memory.queries(0), q, q_channel, query, memory.queries_full());
    Ring<Tile::STAGES> ring;
    for (u32 tile = 0; tile < tiles; ++tile) {
        i32 key = static_cast<i32>(tile * Tile::KEYS);
        wait(memory.keys_empty(ring.stage), ring.parity ^ 1);
        arrive_expecting(memory.keys_full(ring.stage), Tile::KEY_BYTES);
        copy_tile(memory.keys(ring.stage), k, kv_channel, key, memory.keys_full(ring.stage));
        wait(memory.values_empty(ring.stage), ring.parity ^ 1);
        arrive_expecting(memory.values_full(ring.stage), Tile::COPIED_VALUE_BYTES);
        copy_tile(memory.values(ring.stage), v, key, kv_channel, memory.values_full(ring.stage));
        ring.advance();
    }
}

/// What a warpgroup has of the attention of its 64 queries.
template <typename Tile>
struct Attention {
    using Scores = float[Tile::KEYS / 2];
    using Probabilities = u32[Tile::KEYS / 32][4];

    PrefillMemory<Tile> memory;
    Softmax softmax;
    i32 visible;  // keys that this lane's first row sees; its second sees eight more
    /// Sums of products; those of probabilities alone are the columns behind the values'.
    float o[Tile::SUMS] = {};

    static __device__ u32 stage(u32 tile) { return tile % Tile::STAGES; }
    static __device__ u32 parity(u32 tile) { return tile / Tile::STAGES & 1; }
    __device__ u32 warpgroup() const { return threadIdx.x / WARPGROUP; }

    __device__ void ask_scores(u32 tile, Scores& s) {
        wait(memory.keys_full(stage(tile)), parity(tile));
        fence_products();
#pragma unroll
        for (int part = 0; part < Tile::HEAD / 32; ++part) {
            multiply_shared(s, swizzled_rows<Tile::HEAD>(matrix_place(memory.queries(warpgroup()) + 32 * part)),
                            swizzled_rows<Tile::HEAD>(matrix_place(memory.keys(stage(tile)) + 32 * part)), part > 0);
        }
        commit_products();
    }

    __device__ void scores_are_there(u32 tile, Scores& s) {
        if (threadIdx.x % 32 == 0) arrive(memory.keys_empty(stage(tile)));
        keep_in_place(s);
    }

    __device__ void ask_values(u32 tile, const Probabilities& p) {
        wait(memory.values_full(stage(tile)), parity(tile));
        fence_products();
#pragma unroll
        for (int part = 0; part < Tile::KEYS / 32; ++part) {
            accumulate(o, p[part], swizzled_rows(matrix_place(memory.values(stage(tile)) + 32 * part)));
        }
        commit_products();
    }

    __device__ void values_are_there(u32 tile) {
        if (threadIdx.x % 32 == 0) arrive(memory.values_empty(stage(tile)));
        keep_in_place(o);
    }

    __device__ void soften(u32 tile, Scores& s, Probabilities& p, float (&rescale)[ROWS]) {
        i32 seen[ROWS] = {visible - static_cast<i32>(tile * Tile::KEYS), 0};
        seen[1] = seen[0] + 8;
        if (seen[0] < Tile::KEYS) mask<Tile::KEYS>(s, seen);
        raise<Tile::KEYS>(softmax, s, rescale);
        probabilities<Tile::KEYS>(softmax, s, p);
    }

    /// One tile: `now` are its scores, `next` those of the tile behind it, `before` the probabilities of the one before.
    template <bool FIRST, bool LAST>
    __device__ void step(u32 tile, Scores& now, Scores& next, const Probabilities& before, Probabilities& p) {
        constexpr bool BEHIND = Tile::IN_FLIGHT == 3;
        float rescale[ROWS];
        if constexpr (BEHIND && !FIRST) ask_values(tile - 1, before);
        if constexpr (!LAST) ask_scores(tile + 1, next);
        soften(tile, now, p, rescale);
        if constexpr (BEHIND && !FIRST) {
            wait_for_products<LAST ? 0 : 1>();
            values_are_there(tile - 1);
        }
        if constexpr (!FIRST) multiply_rows(o, rescale);
        if constexpr (!BEHIND) ask_values(tile, p);
        if constexpr (!LAST || !BEHIND) wait_for_products<0>();
        if constexpr (!BEHIND) values_are_there(tile);
        if constexpr (!LAST) scores_are_there(tile + 1, next);
    }

    /// The sums over `tiles` tiles of keys.
    __device__ void run(u32 tiles) {
        Scores even, odd;
        Probabilities p_even, p_odd;
        wait(memory.queries_full(), 0);
        ask_scores(0, even);
        wait_for_products<0>();
        scores_are_there(0, even);
        if (tiles == 1) {
            step<true, true>(0, even, odd, p_odd, p_even);
        } else {
            step<true, false>(0, even, odd, p_odd, p_even);
            u32 tile = 1;
            for (; tile + 2 < tiles; tile += 2) {
                step<false, false>(tile, odd, even, p_even, p_odd);
                step<false, false>(tile + 1, even, odd, p_odd, p_even);
            }
            if (tile + 1 < tiles) {
                step<false, false>(tile, odd, even, p_even, p_odd);
                step<false, true>(tile + 1, even, odd, p_odd, p_even);
            } else {
                step<false, true>(tile, odd, even, p_even, p_odd);
            }
        }
        if constexpr (Tile::IN_FLIGHT == 3) {
            if (tiles % 2 == 1) {
                ask_values(tiles - 1, p_even);
            } else {
                ask_values(tiles - 1, p_odd);
            }
            wait_for_products<0>();
            keep_in_place(o);
        }
    }
};

}  // namespace fireq
