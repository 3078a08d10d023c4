#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"
#include "tile/prefill.cuh"

// Sums of attention on their way out: divided by the sums of their probabilities, as f32 or bf16. Of each block of eight
// channels a lane of four has two; lanes exchange them, so that each stores 16 bytes.

namespace fireq {

/// Of two lanes whose numbers differ in `distance`, the lower one gets the other's first word, and the other its second.
__device__ inline void transpose(u32& first, u32& second, int distance) {
    bool upper = (threadIdx.x & static_cast<u32>(distance)) != 0;
    u32 other = exchange(upper ? first : second, distance);
    (upper ? first : second) = other;
}

/// Two blocks of f32, each of which two lanes store, from this lane's pairs of both; nothing of a row that is not there.
__device__ inline void store_blocks(float* row, u32 block, bool exists, float a, float b, float c, float d) {
    u32 words[4] = {bits_of_float(a), bits_of_float(b), bits_of_float(c), bits_of_float(d)};
    transpose(words[0], words[2], 1);
    transpose(words[1], words[3], 1);
    u32 lane = threadIdx.x % 4;
    if (exists) store_words(row + 8 * (block + lane % 2) + lane / 2 * 4, words);
}

/// Four blocks of bf16, each of which one lane stores, from this lane's pairs of all.
__device__ inline void store_blocks(bf16* row, u32 block, bool exists, u32 (&words)[4]) {
    transpose(words[0], words[1], 1);
    transpose(words[2], words[3], 1);
    transpose(words[0], words[2], 2);
    transpose(words[1], words[3], 2);
    if (exists) store_words(row + 8 * (block + threadIdx.x % 4), words);
}

/// Two neighbours as bf16, the first in the low half.
__device__ inline u32 bf16_pair(float low, float high) {
    return static_cast<u32>(to_bf16(low).bits) | static_cast<u32>(to_bf16(high).bits) << 16;
}

/// A row of a head from this lane's share of sums, those of `r` = 0 or 1.
template <typename Tile>
__device__ inline void write_row(const PrefillSums<Tile>& o, int r, float* row, bool exists, float factor) {
#pragma unroll
    for (int block = 0; block < (Tile::HEAD + 7) / 8; block += 2) {
        int n = 4 * block + 2 * r, lane = static_cast<int>(threadIdx.x) % 4;
        // Channels behind the last were filled up.
        bool there = exists && (Tile::HEAD % 16 == 0 || 8 * (block + lane % 2) + lane / 2 * 4 < Tile::HEAD);
        store_blocks(row, block, there, o.at(n) * factor, o.at(n + 1) * factor, o.at(n + 4) * factor, o.at(n + 5) * factor);
    }
}

template <typename Tile>
__device__ inline void write_row(const PrefillSums<Tile>& o, int r, bf16* row, bool exists, float factor) {
    static_assert(Tile::HEAD % 8 == 0, "a lane stores eight channels");
    constexpr u32 BLOCKS = Tile::HEAD / 8;
#pragma unroll
    for (u32 block = 0; block < BLOCKS; block += 4) {
        u32 words[4];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            int n = 4 * (block + i) + 2 * r;
            words[i] = bf16_pair(o.at(n) * factor, o.at(n + 1) * factor);
        }
        // Blocks behind the last are of channels that were filled up.
        store_blocks(row, block, exists && block + threadIdx.x % 4 < BLOCKS, words);
    }
}

/// This lane's share of its two rows, `apart` numbers from each other: the first is at `row`, and there are `rows` of them.
template <typename Tile, typename Out>
__device__ inline void write_rows(const PrefillSums<Tile>& o, Out* row, u64 apart, int rows) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        // The column of ones is the first behind the values: lanes 0, 4, 8, … have it.
        float sum = of_lane(o.last[Tile::PANEL / 2 + 2 * r], threadIdx.x % WARP & ~3u);
        write_row<Tile>(o, r, row + r * apart, r < rows, 1.0f / sum);
    }
}

}  // namespace fireq
