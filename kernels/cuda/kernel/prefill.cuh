#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/memory.cuh"
#include "ptx/warp.cuh"
#include "mainloop/prefill.cuh"

// Causal attention of many queries over FP8 keys and values (FireQ section 6): one CTA for 128 queries of a head, those with
// the most keys first.

namespace fireq::prefill {

struct Params {
    TensorMap q;            // [tokens, heads·HEAD] E4M3, tiles of HEAD × 128
    TensorMap k;            // [keys, kv_heads·HEAD] E4M3, tiles of HEAD × 128
    TensorMap v;            // [kv_heads·HEAD, keys] E4M3, keys of sixteen in the order of products; tiles of 128 × HEAD
    const float* q_scales;  // [tokens, heads]
    float* out;             // [tokens, heads·HEAD]
    float factor;           // the attention's scale · log2(e)
    u32 tokens;
    u32 past;
    u32 heads;
    u32 repeats;  // query heads of a kv head
};

/// Writes rows that are tokens, divided by their sums.
template <typename Tile>
__device__ inline void write(const Params& p, const float (&o)[Tile::SUMS], u32 query, u32 head) {
    u32 lane = threadIdx.x % 32;
    u32 row = query + threadIdx.x % WARPGROUP / 32 * 16 + lane / 4;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        // The column of ones is the first of those behind the values: lanes 0, 4, 8, … have it.
        float share = 1.0f / of_lane(o[Tile::HEAD / 2 + 2 * r], lane & ~3u);
        if (row + 8 * r >= p.tokens) continue;
        float* to = p.out + (static_cast<u64>(row + 8 * r) * p.heads + head) * Tile::HEAD + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < Tile::HEAD / 8; ++n) {
            u32 words[2] = {bits_of_float(o[4 * n + 2 * r] * share), bits_of_float(o[4 * n + 2 * r + 1] * share)};
            store_words(to + 8 * n, words);
        }
    }
}

template <typename Tile>
__device__ inline void run(const Params& p) {
    extern __shared__ __align__(1024) u8 shared[];
    PrefillMemory<Tile> memory{shared};
    u32 query = (gridDim.x - 1 - blockIdx.x) * Tile::QUERIES, head = blockIdx.y, kv_head = head / p.repeats;
    u32 last = min(query + Tile::QUERIES, p.tokens) + p.past;
    u32 tiles = (last + Tile::KEYS - 1) / Tile::KEYS;
    if (threadIdx.x == 0) initialize(memory);
    write_ones(memory);
    synchronize();
    if (threadIdx.x >= Tile::CONSUMERS) {
        give_registers_up_to<24>();
        if (threadIdx.x == Tile::CONSUMERS) {
            produce(memory, p.q, p.k, p.v, static_cast<i32>(query), static_cast<i32>(head * Tile::HEAD),
                    static_cast<i32>(kv_head * Tile::HEAD), tiles);
        }
    } else {
        take_registers_up_to<240>();
        u32 first = query + threadIdx.x / WARPGROUP * 64;
        u32 row = first + static_cast<u32>(own_row());
        Attention<Tile> attention{memory, {}, static_cast<i32>(p.past + first + 1)};
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            u64 token = min(row + 8 * r, p.tokens - 1);
            attention.softmax.factor[r] = p.q_scales[token * p.heads + head] * p.factor;
            attention.softmax.highest[r] = float_of_bits(0xff800000u);
        }
        attention.run(tiles);
        write<Tile>(p, attention.o, first, head);
    }
}

}  // namespace fireq::prefill
