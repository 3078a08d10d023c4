#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "tile/chunk.cuh"
#include "tile/noise.cuh"
#include "tile/reduce.cuh"

// A token for each row of logits: the column of the largest score, the lowest among equals. Scores are the logits, or, for
// a random token, logits with Gumbel noise. One CTA for a row.

namespace fireq::sample {

/// What decides the token of a row; all zero takes the largest logit.
struct Draw {
    u64 seed;
    u64 mass;     // how much of the probability is kept, in units of 2⁻⁶⁴; 0 keeps every token
    u32 step;
    float scale;  // of logits: log2(e) over the temperature; 0 takes the largest
};

struct Params {
    const float* x;     // [rows, COLS], finite
    const Draw* draws;  // [rows]
    i32* index;         // [rows]
};

/// A key that orders as the numbers do, and among equal ones the earlier column first. Both zeros are one number.
__device__ inline u64 key(float x, int column) {
    u32 bits = bits_of_float(x + 0.0f);
    u32 ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<u64>(ordered) << 32 | (0xffffffffu - static_cast<u32>(column));
}

/// A row, in fours of columns that threads take in turn.
template <int COLS, int THREADS>
struct Row {
    const float* x;

    /// Calls `each(first column, four logits, how many there are)` for this thread's.
    template <typename Each>
    __device__ void fours(Each each) const {
        // Where threads have one four at most, a second copy of what is done with it only takes registers. Of few threads the
        // assembler gives each 32 nevertheless, and they spill.
#pragma unroll (COLS > 4 * THREADS || THREADS > 512 ? 2 : 1)
        for (int column = static_cast<int>(threadIdx.x) * 4; column < COLS; column += THREADS * 4) {
            float four[4] = {};
            int count = 4;
            if constexpr (COLS % 4 == 0) {
                load_chunk(x + column, four);
            } else {
                count = COLS - column < 4 ? COLS - column : 4;
#pragma unroll
                for (int n = 0; n < 4; ++n) four[n] = n < count ? x[column + n] : 0.0f;
            }
            each(column, four, count);
        }
    }
};

/// What the reductions of a row share.
template <int THREADS>
struct Shared {
    u64 keys[THREADS / WARP];
    float most[THREADS / WARP];
    u64 bins[256];
    u64 wanted;  // of the mass, from the likeliest on, that tokens of a smaller weight have to bring
    u32 least;   // bits of the least weight that is kept, as far as they are known
};

template <int COLS, int THREADS>
__device__ inline float largest(const Row<COLS, THREADS>& row, Shared<THREADS>& shared) {
    float most = -0x1.fffffep127f;
    row.fours([&](int, const float(&x)[4], int count) {
#pragma unroll
        for (int n = 0; n < 4; ++n) most = n < count ? larger(most, x[n]) : most;
    });
    return reduce_cta<Largest, THREADS>(most, shared.most);
}

/// Adds up, for the eight bits from `SHIFT` on, the weights of tokens whose higher bits are those of the least. Most
/// weights are small: those of the lowest bin meet in registers.
template <int SHIFT, int COLS, int THREADS>
__device__ inline void fill_bins(const Row<COLS, THREADS>& row, float most, float scale, Shared<THREADS>& shared) {
    for (int n = static_cast<int>(threadIdx.x); n < 256; n += THREADS) shared.bins[n] = 0;
    synchronize();
    u64 low = 0;
    u32 known = SHIFT == 24 ? 0 : shared.least;
    row.fours([&](int, const float(&x)[4], int count) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            u32 w = n < count ? weight((most - x[n]) * scale) : 0;
            u32 above = (w ^ known) >> SHIFT, bin = w >> SHIFT & 255;
            if (above > 255) continue;
            if (bin == 0) {
                low += w;
            } else {
                add_shared(&shared.bins[bin], w);
            }
        }
    });
    low = reduce_lanes<Sum, WARP>(low);
    if (threadIdx.x % WARP == 0) add_shared(&shared.bins[0], low);
    synchronize();
}

/// Finds the bin in which the mass that is wanted is reached, from the highest bin on: one warp, eight bins a lane.
template <int SHIFT, int THREADS>
__device__ inline void choose_bin(u64 mass, Shared<THREADS>& shared) {
    if (threadIdx.x < WARP) {
        u32 lane = threadIdx.x, first = 8 * (WARP - 1 - lane);
        u64 own = 0;
#pragma unroll
        for (u32 n = 0; n < 8; ++n) own += shared.bins[first + n];
        u64 until = own;
#pragma unroll
        for (u32 step = 1; step < WARP; step *= 2) {
            u64 lower = of_lower_lane(until, step);
            until += lane >= step ? lower : 0;
        }
        u64 wanted = SHIFT == 24 ? share(of_lane(until, WARP - 1), mass) : shared.wanted;
        u64 before = until - own;
        if (before < wanted && wanted <= until) {
            u32 bin = first + 7;
            for (; before + shared.bins[bin] < wanted; --bin) before += shared.bins[bin];
            shared.wanted = wanted - before;
            shared.least = (SHIFT == 24 ? 0 : shared.least) | bin << SHIFT;
        }
    }
    synchronize();
}

template <int SHIFT, int COLS, int THREADS>
__device__ inline void narrow(const Row<COLS, THREADS>& row, float most, const Draw& draw, Shared<THREADS>& shared) {
    fill_bins<SHIFT>(row, most, draw.scale, shared);
    choose_bin<SHIFT>(draw.mass, shared);
}

/// The least weight of the likeliest tokens that together have the mass that is kept.
template <int COLS, int THREADS>
__device__ inline u32 least_kept(const Row<COLS, THREADS>& row, float most, const Draw& draw,
                                 Shared<THREADS>& shared) {
    narrow<24>(row, most, draw, shared);
    narrow<16>(row, most, draw, shared);
    narrow<8>(row, most, draw, shared);
    narrow<0>(row, most, draw, shared);
    return shared.least;
}

/// The key of this thread's best column.
template <int COLS, int THREADS>
__device__ inline u64 best(const Row<COLS, THREADS>& row, const Draw& draw, float most, u32 least) {
    u64 best = 0;
    row.fours([&](int column, const float(&x)[4], int count) {
        u32 random[4] = {static_cast<u32>(column) / 4, draw.step, 0, 0};
        if (draw.scale > 0.0f) philox(random, draw.seed);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            float score = draw.scale > 0.0f ? x[n] * draw.scale + gumbel(random[n]) : x[n];
            bool kept = n < count && (least == 0 || weight((most - x[n]) * draw.scale) >= least);
            best = Largest::of(best, kept ? key(score, column + n) : 0);
        }
    });
    return best;
}

template <int COLS, int THREADS>
__device__ inline void run(const Params& p) {
    __shared__ Shared<THREADS> shared;
    Row<COLS, THREADS> row{p.x + static_cast<i64>(blockIdx.x) * COLS};
    Draw draw = p.draws[blockIdx.x];
    wait_for_earlier_launches();
    let_later_launches_begin();
    float most = 0.0f;
    u32 least = 0;
    if (draw.scale > 0.0f && draw.mass > 0) {
        most = largest(row, shared);
        least = least_kept(row, most, draw, shared);
    }
    u64 found = reduce_cta<Largest, THREADS>(best(row, draw, most, least), shared.keys);
    if (threadIdx.x == 0) p.index[blockIdx.x] = static_cast<i32>(0xffffffffu - static_cast<u32>(found));
}

}  // namespace fireq::sample
