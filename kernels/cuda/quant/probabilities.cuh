#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/wgmma.cuh"

// Softmax of a tile of scores in registers, in base 2. The running maximum is rounded up to a whole number: what sums so far
// are multiplied by when it rises is a power of two, which is exact, and probabilities round as they would under any other.

namespace fireq {

/// Rows of scores that a lane has a part of: g and g + 8 of its warp's sixteen.
inline constexpr int ROWS = 2;

/// This lane's first row of the warpgroup's 64; its second is the eighth behind.
__device__ inline i32 own_row() { return static_cast<i32>(threadIdx.x % WARPGROUP / WARP * 16 + threadIdx.x % WARP / 4); }

struct Softmax {
    float factor[ROWS];   // from scores to exponents of 2
    float highest[ROWS];  // a whole number, or -infinity before the first tile
};

/// Scores of keys from `visible` on are -infinity; where attention is causal, each row sees one key more than the one before.
template <int KEYS, bool CAUSAL>
__device__ inline void mask(float (&s)[KEYS / 2], i32 visible) {
    constexpr int MORE = CAUSAL ? 8 : 0;
    i32 seen = visible + (CAUSAL ? own_row() : 0) - static_cast<i32>(threadIdx.x % 4) * 2;
#pragma unroll
    for (int n = 0; n < KEYS / 2; ++n) {
        s[n] = n / 4 * 8 + n % 2 < seen + n / 2 % 2 * MORE ? s[n] : float_of_bits(0xff800000u);
    }
}

/// Raises the maximum to that of a tile; what sums so far are to be multiplied by.
template <int KEYS>
__device__ inline void raise(Softmax& softmax, const float (&s)[KEYS / 2], float (&rescale)[ROWS]) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        float most = s[2 * row];
#pragma unroll
        for (int n = 0; n < KEYS / 2; ++n) {
            if (n / 2 % 2 == row) most = larger(most, s[n]);
        }
        most = larger(most, exchange(most, 1));
        most = larger(most, exchange(most, 2));
        float highest = larger(softmax.highest[row], round_up(most * softmax.factor[row]));
        rescale[row] = power_of_two(softmax.highest[row] - highest);
        softmax.highest[row] = highest;
    }
}

/// Scores become probabilities times 448.
template <int KEYS>
__device__ inline void exponentiate(const Softmax& softmax, float (&s)[KEYS / 2]) {
    constexpr float LOG2_448 = 8.80735492f;
#pragma unroll
    for (int n = 0; n < KEYS / 2; ++n) {
        int row = n / 2 % 2;
        s[n] = power_of_two(multiply_add(s[n], softmax.factor[row], LOG2_448 - softmax.highest[row]));
    }
}

/// Probabilities as E4M3, in the registers that a product of values takes: of each 32 keys four words, in which the keys of
/// sixteen lie in the order that values are stored in.
template <int KEYS>
__device__ inline void round_probabilities(const float (&s)[KEYS / 2], u32 (&p)[KEYS / 32][4]) {
#pragma unroll
    for (int block = 0; block < KEYS / 32; ++block) {
#pragma unroll
        for (int word = 0; word < 4; ++word) {
            int n = 16 * block + 8 * (word / 2) + 2 * (word % 2);
            u32 low = to_e4m3_pair(s[n], s[n + 1]), high = to_e4m3_pair(s[n + 4], s[n + 5]);
            p[block][word] = low | high << 16;
        }
    }
}

template <int SUMS>
__device__ inline void multiply_rows(float (&o)[SUMS], const float (&by)[ROWS]) {
#pragma unroll
    for (int n = 0; n < SUMS; ++n) o[n] *= by[n / 2 % 2];
}

/// Sums of rows under smaller maxima, which are multiplied by `by`, and those of a tile.
template <int SUMS>
__device__ inline void add_rows(float (&o)[SUMS], const float (&by)[ROWS], const float (&tile)[SUMS]) {
#pragma unroll
    for (int n = 0; n < SUMS; ++n) o[n] = multiply_add(o[n], by[n / 2 % 2], tile[n]);
}

}  // namespace fireq
