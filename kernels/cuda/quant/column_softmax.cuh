#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "tile/decode_attention.cuh"

// Softmax of tiles of scores in registers whose columns are queries and whose rows, keys, four warps share. In base 2, under
// a running maximum that is a whole number, as in `quant/probabilities.cuh`.

namespace fireq {

template <typename Tile>
struct ColumnSoftmax {
    using Sums = float[Tile::SUMS];

    float factor[Tile::COLUMNS];   // from scores to exponents of 2
    float highest[Tile::COLUMNS];  // a whole number, or -infinity before the first tile

    /// Scores of positions from `visible` on are -infinity; `first` is that of the lane's first row.
    static __device__ void mask(Sums& s, u32 first, i32 visible) {
#pragma unroll
        for (int n = 0; n < Tile::SUMS; ++n) {
            bool seen = static_cast<i32>(first) + Tile::row(n) < visible;
            s[n] = seen ? s[n] : float_of_bits(0xff800000u);
        }
    }

    /// Puts this warp's largest scores where the others find them.
    template <int TILES>
    __device__ void offer(const DecodeMemory<Tile>& memory, const Sums (&s)[TILES]) const {
#pragma unroll
        for (int column = 0; column < Tile::COLUMNS; ++column) {
            float most = s[0][column / 2 * 4 + column % 2];
#pragma unroll
            for (int n = 1; n < TILES * Tile::SUMS; ++n) {
                if (Tile::column(n % Tile::SUMS) == column) most = larger(most, s[n / Tile::SUMS][n % Tile::SUMS]);
            }
#pragma unroll
            for (int mask = 4; mask < WARP; mask *= 2) most = larger(most, exchange(most, mask));
            if (threadIdx.x % WARP < 4) memory.most(Tile::query(column))[threadIdx.x / WARP] = most;
        }
    }

    /// Raises the maximum to that of all warps; what sums so far are to be multiplied by.
    __device__ void raise(const DecodeMemory<Tile>& memory, float (&rescale)[Tile::COLUMNS]) {
#pragma unroll
        for (int column = 0; column < Tile::COLUMNS; ++column) {
            float4 most = *reinterpret_cast<const float4*>(memory.most(Tile::query(column)));
            float all = larger(larger(most.x, most.y), larger(most.z, most.w));
            float above = larger(highest[column], round_up(all * factor[column]));
            rescale[column] = power_of_two(highest[column] - above);
            highest[column] = above;
        }
    }

    /// Probabilities times 448 as E4M3, for the products with values: a lane's two keys are neighbours.
    template <int TILES>
    __device__ void store(const DecodeMemory<Tile>& memory, const Sums (&s)[TILES]) const {
        constexpr float LOG2_448 = 8.80735492f;
        u32 warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
#pragma unroll
        for (int column = 0; column < Tile::COLUMNS; ++column) {
            float offset = LOG2_448 - highest[column];
            int n = column / 2 * 4 + column % 2;
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
                float first = power_of_two(multiply_add(s[tile][n], factor[column], offset));
                float second = power_of_two(multiply_add(s[tile][n + 2], factor[column], offset));
                u8* to = memory.probabilities(tile) + warp * Tile::SIXTEEN + Tile::query(column) * 16 + g * 2;
                *reinterpret_cast<u16*>(to) = to_e4m3_pair(first, second);
            }
        }
        publish_writes();
    }
};

}  // namespace fireq
