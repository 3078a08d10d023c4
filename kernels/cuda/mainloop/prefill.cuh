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

// FP8 attention of a tile of queries over tiles of keys. While the tensor cores multiply the probabilities of the tile before
// with its values, and queries with the next tile of keys, the other units do the softmax of this one.

namespace fireq {

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

/// This lane's first row of the warpgroup's 64; its second is the eighth behind.
__device__ inline i32 own_row() { return static_cast<i32>(threadIdx.x % WARPGROUP / WARP * 16 + threadIdx.x % WARP / 4); }

/// The queries of a CTA, and the keys that it reads.
struct PrefillPlace {
    i32 query;    // their first row
    i32 head;     // query head
    i32 kv_head;  // head of keys and values
    i32 key;      // first position in the workspace
    u32 tiles;    // of keys
};

/// What one thread asks for.
template <typename Tile>
__device__ inline void produce(const PrefillMemory<Tile>& memory, const TensorMap& q, const TensorMap& k, const TensorMap& v,
                               const PrefillPlace& place) {
    arrive_expecting(memory.queries_full(), Tile::QUERY_BYTES);
#pragma unroll
    for (int panel = 0; panel < Tile::PANELS; ++panel) {
        copy_tile(memory.queries(0, panel), q, panel * Tile::PANEL, place.head, place.query, memory.queries_full());
    }
    Ring<Tile::STAGES> ring;
    for (u32 tile = 0; tile < place.tiles; ++tile) {
        i32 key = place.key + static_cast<i32>(tile * Tile::KEYS);
        u64* keys_full = memory.keys_full(ring.stage);
        wait(memory.keys_empty(ring.stage), ring.parity ^ 1);
        arrive_expecting(keys_full, Tile::KEY_BYTES);
#pragma unroll
        for (int panel = 0; panel < Tile::PANELS; ++panel) {
            copy_tile(memory.keys(ring.stage, panel), k, panel * Tile::PANEL, place.kv_head, key, keys_full);
        }
        wait(memory.values_empty(ring.stage), ring.parity ^ 1);
        arrive_expecting(memory.values_full(ring.stage), Tile::COPIED_VALUE_BYTES);
        copy_tile(memory.values(ring.stage), v, key, 0, place.kv_head, memory.values_full(ring.stage));
        ring.advance();
    }
}

/// Scores of a tile, and probabilities before they are rounded. Structures, since compilers put arrays of one type into one
/// place: products that write one would wait for those that read another.
template <typename Tile>
struct Scores {
    float s[Tile::KEYS / 2];
};

template <typename Tile>
struct Probabilities {
    u32 p[Tile::KEYS / 32][4];
};

/// What a warpgroup has of the attention of its 64 queries.
template <typename Tile>
struct Attention {
    PrefillMemory<Tile> memory;
    Softmax softmax;
    i32 visible;  // keys, from those of the next softmax on, that the first of the queries sees; each other sees one more
    PrefillSums<Tile> o;
    /// Tiles whose scores are asked for next, are there next, and whose values are asked for next.
    Ring<Tile::STAGES> keys, scored, values;

    static __device__ u32 warpgroup() { return threadIdx.x / WARPGROUP; }

    __device__ void ask_scores(Scores<Tile>& s) {
        wait(memory.keys_full(keys.stage), keys.parity);
        fence_products();
#pragma unroll
        for (int part = 0; part < Tile::WIDE / 32; ++part) {
            u32 panel = part * 32 / Tile::PANEL, channel = part * 32 % Tile::PANEL;
            u32 a = matrix_place(memory.queries(warpgroup(), panel) + channel);
            u32 b = matrix_place(memory.keys(keys.stage, panel) + channel);
            multiply_shared(s.s, swizzled_rows<Tile::PANEL>(a), swizzled_rows<Tile::PANEL>(b), part > 0);
        }
        commit_products();
        keys.advance();
    }

    __device__ void scores_are_there(Scores<Tile>& s) {
        keep_in_place(s.s);
        if (threadIdx.x % WARP == 0) arrive(memory.keys_empty(scored.stage));
        scored.advance();
    }

    /// The values have arrived: the softmax before waits for them. The stage that they are in.
    __device__ u32 ask_values(const Probabilities<Tile>& p) {
        u32 stage = values.stage;
        fence_products();
#pragma unroll
        for (int part = 0; part < Tile::KEYS / 32; ++part) {
            u8* keys = memory.values(stage) + 32 * part;
            if constexpr (Tile::PANELS > 1) multiply<Tile::PANEL>(o.first, p.p[part], swizzled_rows(matrix_place(keys)), true);
            u8* last = keys + (Tile::PANELS - 1) * Tile::PANEL * Tile::KEYS;
            accumulate(o.last, p.p[part], swizzled_rows(matrix_place(last)));
        }
        commit_products();
        values.advance();
        return stage;
    }

    __device__ void keep_sums() {
        if constexpr (Tile::PANELS > 1) keep_in_place(o.first);
        keep_in_place(o.last);
    }

    /// Sums are there; the next are of larger maxima.
    __device__ void values_are_there(u32 stage, const float (&rescale)[ROWS]) {
        keep_sums();
        if (threadIdx.x % WARP == 0) arrive(memory.values_empty(stage));
        // Most of the time, maxima have not risen.
        if (!any_lane(rescale[0] != 1.0f || rescale[1] != 1.0f)) return;
        if constexpr (Tile::PANELS > 1) multiply_rows(o.first, rescale);
        multiply_rows(o.last, rescale);
    }

    /// Scores become probabilities, and values that these are for arrive. What sums so far are to be multiplied by.
    __device__ void soften(Scores<Tile>& s, float (&rescale)[ROWS]) {
        if (visible < Tile::KEYS) mask<Tile::KEYS>(s.s, visible + own_row());
        visible -= Tile::KEYS;
        raise<Tile::KEYS>(softmax, s.s, rescale);
        exponentiate<Tile::KEYS>(softmax, s.s);
        if (has_ended(memory.values_full(values.stage), values.parity)) return;
        // Probabilities are not negative, and stay what they are. Compilers move arithmetic behind waits for products, and
        // tensor cores would be alone; past a branch of which the other side writes the results, too, they cannot.
#pragma unroll
        for (int n = 0; n < Tile::KEYS / 2; ++n) s.s[n] = larger(s.s[n], 0.0f);
        wait(memory.values_full(values.stage), values.parity);
    }

    /// The first tile's probabilities; with `AHEAD`, the next one's scores are on their way.
    template <bool AHEAD>
    __device__ void begin(Scores<Tile>& now, Scores<Tile>& next, Probabilities<Tile>& p) {
        float nothing_yet[ROWS];
        ask_scores(now);
        if constexpr (AHEAD) ask_scores(next);
        wait_for_products<AHEAD ? 1 : 0>();
        scores_are_there(now);
        soften(now, nothing_yet);
        round_probabilities<Tile::KEYS>(now.s, p.p);
    }

    /// Scores and the values of the tile before are multiplied together; while these still are, the softmax runs.
    __device__ void step_of_two(Scores<Tile>& now, Probabilities<Tile>& p) {
        float rescale[ROWS];
        ask_scores(now);
        u32 before = ask_values(p);
        wait_for_products<1>();
        scores_are_there(now);
        soften(now, rescale);
        wait_for_products<0>();
        values_are_there(before, rescale);
        round_probabilities<Tile::KEYS>(now.s, p.p);
    }

    /// While the softmax runs, the values of the tile before and, but for the last tile, scores of the next are multiplied.
    template <bool LAST>
    __device__ void step_of_three(Scores<Tile>& now, Scores<Tile>& next, Probabilities<Tile>& p) {
        float rescale[ROWS];
        u32 before = ask_values(p);
        if constexpr (!LAST) ask_scores(next);
        wait_for_products<LAST ? 1 : 2>();
        scores_are_there(now);
        soften(now, rescale);
        wait_for_products<LAST ? 0 : 1>();
        values_are_there(before, rescale);
        round_probabilities<Tile::KEYS>(now.s, p.p);
    }

    __device__ void run_three(u32 tiles, Probabilities<Tile>& p) {
        Scores<Tile> even, odd;
        if (tiles == 1) return begin<false>(even, odd, p);
        begin<true>(even, odd, p);
        u32 tile = 1;
        for (; tile + 2 < tiles; tile += 2) {
            step_of_three<false>(odd, even, p);
            step_of_three<false>(even, odd, p);
        }
        if (tile + 1 < tiles) {
            step_of_three<false>(odd, even, p);
            step_of_three<true>(even, odd, p);
        } else {
            step_of_three<true>(odd, even, p);
        }
    }

    __device__ void run_two(u32 tiles, Probabilities<Tile>& p) {
        Scores<Tile> s;
        begin<false>(s, s, p);
        for (u32 tile = 1; tile < tiles; ++tile) step_of_two(s, p);
    }

    /// The sums over `tiles` tiles of keys.
    __device__ void run(u32 tiles) {
        Probabilities<Tile> p;
        wait(memory.queries_full(), 0);
        if constexpr (Tile::IN_FLIGHT == 3) {
            run_three(tiles, p);
        } else {
            run_two(tiles, p);
        }
        ask_values(p);
        wait_for_products<0>();
        keep_sums();
    }
};

}  // namespace fireq
