#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/wgmma.cuh"
#include "ptx/wgmma_shared.cuh"
#include "ptx/wgmma_attention.cuh"
#include "tile/prefill.cuh"
#include "tile/ring.cuh"
#include "quant/probabilities.cuh"

// FP8 attention of a tile of queries over tiles of keys. While the tensor cores multiply the probabilities of the tile before
// with its values, and queries with the next tile of keys, the other units do the softmax of this one.

namespace fireq {

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
    i32 visible;  // keys, from those of the next softmax on, that the first of the queries sees
    PrefillSums<Tile> o;
    /// Where sums are promoted: those of a tile, and what the others are multiplied by before these are added.
    PrefillSums<Tile> of_tile;
    float to_tile[ROWS];
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
        memory.release(memory.keys_empty(scored.stage));
        scored.advance();
    }

    /// The sums that products of values go to.
    __device__ PrefillSums<Tile>& running() {
        if constexpr (Tile::PROMOTES) {
            return of_tile;
        } else {
            return o;
        }
    }

    /// Asks for products with a panel of values; the last has the ones behind it.
    template <int SUMS>
    __device__ void ask_panel(float (&sums)[SUMS], const Probabilities<Tile>& p, u32 panel) {
        u8* rows = memory.values(values.stage) + panel * Tile::PANEL * Tile::KEYS;
#pragma unroll
        for (int part = 0; part < Tile::KEYS / 32; ++part) {
            bool keep = !Tile::PROMOTES || part > 0;
            u64 b = swizzled_rows(matrix_place(rows + 32 * part));
            if constexpr (SUMS == Tile::LAST_SUMS) {
                accumulate(sums, p.p[part], b, keep);
            } else {
                multiply<Tile::PANEL>(sums, p.p[part], b, keep);
            }
        }
    }

    /// The values have arrived: the softmax before waits for them. The stage that they are in.
    __device__ u32 ask_values(const Probabilities<Tile>& p) {
        u32 stage = values.stage;
        fence_products();
        if constexpr (Tile::PANELS > 1) ask_panel(running().first, p, 0);
        ask_panel(running().last, p, Tile::PANELS - 1);
        commit_products();
        values.advance();
        return stage;
    }

    __device__ void keep_sums() {
        if constexpr (Tile::PANELS > 1) keep_in_place(running().first);
        keep_in_place(running().last);
    }

    /// Sums are there; the next are of larger maxima.
    __device__ void values_are_there(u32 stage, const float (&rescale)[ROWS]) {
        keep_sums();
        memory.release(memory.values_empty(stage));
        if constexpr (Tile::PROMOTES) {
            promote();
#pragma unroll
            for (int row = 0; row < ROWS; ++row) to_tile[row] = rescale[row];
        } else {
            // Most of the time, maxima have not risen.
            if (!any_lane(rescale[0] != 1.0f || rescale[1] != 1.0f)) return;
            if constexpr (Tile::PANELS > 1) multiply_rows(o.first, rescale);
            multiply_rows(o.last, rescale);
        }
    }

    __device__ void promote() {
        if constexpr (Tile::PANELS > 1) add_rows(o.first, to_tile, of_tile.first);
        add_rows(o.last, to_tile, of_tile.last);
    }

    /// Scores become probabilities, and values that these are for arrive. What sums so far are to be multiplied by.
    __device__ void soften(Scores<Tile>& s, float (&rescale)[ROWS]) {
        if (visible < Tile::KEYS) mask<Tile::KEYS, Tile::CAUSAL>(s.s, visible);
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

    /// A tile's probabilities, behind no other's products; with `AHEAD`, the next one's scores are on their way.
    template <bool AHEAD>
    __device__ void begin(Scores<Tile>& now, Scores<Tile>& next, Probabilities<Tile>& p) {
        ask_scores(now);
        if constexpr (AHEAD) ask_scores(next);
        wait_for_products<AHEAD ? 1 : 0>();
        scores_are_there(now);
        soften(now, to_tile);
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

    /// Sums of a panel alone, which are added to the others before the next panel's take their registers.
    template <int SUMS>
    __device__ void add_panel(float (&o)[SUMS], const Probabilities<Tile>& p, u32 panel) {
        float sums[SUMS];
        fence_products();
        ask_panel(sums, p, panel);
        commit_products();
        wait_for_products<0>();
        keep_in_place(sums);
        add_rows(o, to_tile, sums);
    }

    /// One step of a tile after the other: the other warpgroup's products go on meanwhile.
    __device__ void step_of_one() {
        Scores<Tile> s;
        Probabilities<Tile> p;
        begin<false>(s, s, p);
        if constexpr (Tile::PANELS > 1) add_panel(o.first, p, 0);
        add_panel(o.last, p, Tile::PANELS - 1);
        memory.release(memory.values_empty(values.stage));
        values.advance();
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
        wait(memory.queries_full(), 0);
        if constexpr (Tile::IN_FLIGHT == 1) {
#pragma unroll 1
            for (u32 tile = 0; tile < tiles; ++tile) step_of_one();
        } else {
            Probabilities<Tile> p;
            if constexpr (Tile::IN_FLIGHT == 3) {
                run_three(tiles, p);
            } else {
                run_two(tiles, p);
            }
            ask_values(p);
            wait_for_products<0>();
            keep_sums();
            if constexpr (Tile::PROMOTES) promote();
        }
    }
};

}  // namespace fireq
