#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
#include "ptx/warp.cuh"
#include "mainloop/decode_attention.cuh"

// Attention of single tokens over INT4 pages (FireQ section 6): one CTA for the query heads of a kv head and some of the keys
// of a token. Where keys are split, `combine` makes one of the parts.

namespace fireq::decode_attention {

struct Params {
    const e4m3* q;         // [tokens, heads·PITCH]
    const float* q_scales; // [tokens, heads]
    const u8* pages;       // page n begins n·page_stride bytes on
    const u32* tables;     // [sequences, table_stride]: pages of a sequence, in order
    const u32* sequences;  // [tokens], or null where token n is of sequence n
    const i32* positions;  // [tokens]: the last key that a token sees
    float* out;            // [tokens, heads·HEAD]
    float* sums;           // [tokens, splits, heads, HEAD]: sums of tokens whose keys are split
    float* ends;           // [tokens, splits, heads, 2]: their exponents, and sums of probabilities
    float factor;          // the attention's scale · log2(e)
    u32 page_stride;
    u32 table_stride;
    u32 split_tiles;  // tiles of 64 keys of a CTA, at most
    u32 repeats;      // query heads of a kv head
};

/// Codes of the queries, sixteen channels of all of them after the other; queries and channels beyond the last are zero.
template <typename Tile>
__device__ inline void load_queries(const DecodeMemory<Tile>& memory, const e4m3* q, u32 repeats) {
    constexpr u32 CHUNKS = Tile::QUERY_BYTES / 16;
    for (u32 n = threadIdx.x; n < CHUNKS; n += Tile::THREADS) {
        u32 query = n % Tile::QUERIES, channel = n / Tile::QUERIES * 16;
        uint4 codes = {};
        if (query < repeats && channel < Tile::HEAD) codes = *reinterpret_cast<const uint4*>(q + query * Tile::PITCH + channel);
        if constexpr (Tile::HEAD % 16 > 0) {
            codes.y = channel + 4 < Tile::HEAD ? codes.y : 0;
            codes.z = channel + 8 < Tile::HEAD ? codes.z : 0;
            codes.w = channel + 12 < Tile::HEAD ? codes.w : 0;
        }
        reinterpret_cast<uint4*>(memory.queries())[n] = codes;
    }
    publish_writes();
}

/// Writes what a CTA has of its queries: to the output where it has all keys.
template <typename Tile>
__device__ inline void write(const Decoding<Tile>& all, float* to, float* ends, u32 repeats, bool whole) {
    u32 channel = threadIdx.x / WARP * 16 + threadIdx.x % WARP / 4;
#pragma unroll
    for (int column = 0; column < Tile::COLUMNS; ++column) {
        u32 query = Tile::query(column);
        if (query >= repeats) continue;
        float share = whole ? 1.0f / all.total[column] : 1.0f;
        if (!whole && threadIdx.x < 4) {
            ends[2 * query] = all.softmax.highest[column];
            ends[2 * query + 1] = all.total[column];
        }
#pragma unroll
        for (int n = 0; n < 2 * Tile::BLOCKS; ++n) {
            u32 at = channel + static_cast<u32>(n / 2 * 64 + n % 2 * 8);
            if (Tile::HEAD % 64 > 0 && at >= Tile::HEAD) continue;
            to[query * Tile::HEAD + at] = all.o[n / 2][column / 2 * 4 + column % 2 + n % 2 * 2] * share;
        }
    }
}

template <typename Tile>
__device__ inline void run(const Params& p) {
    extern __shared__ __align__(1024) u8 shared[];
    DecodeMemory<Tile> memory{shared};
    u32 kv_head = blockIdx.x, token = blockIdx.y, split = blockIdx.z, heads = gridDim.x * p.repeats;
    u32 keys = static_cast<u32>(p.positions[token]) + 1, tiles = (keys + Tile::KEYS - 1) / Tile::KEYS;
    u32 first = split * p.split_tiles, end = min(first + p.split_tiles, tiles);
    if (first >= tiles) return;
    u64 unit = static_cast<u64>(token) * heads + kv_head * p.repeats;
    if (threadIdx.x == 0) initialize(memory);
    wait_for_earlier_launches();
    let_later_launches_begin();
    load_queries(memory, p.q + unit * Tile::PITCH, p.repeats);
    synchronize();
    if (threadIdx.x >= Tile::CONSUMERS) {
        u32 sequence = p.sequences == nullptr ? token : p.sequences[token];
        const u32* table = p.tables + static_cast<u64>(sequence) * p.table_stride;
        produce(memory, p.pages, p.page_stride, table, kv_head, first, end);
        return;
    }
    Decoding<Tile> all{memory};
#pragma unroll
    for (int column = 0; column < Tile::COLUMNS; ++column) {
        u32 query = Tile::query(column);
        all.softmax.factor[column] = query < p.repeats ? p.q_scales[unit + query] * p.factor : 1.0f;
    }
    all.run(end - first, static_cast<i32>(keys - first * Tile::KEYS));
    bool whole = tiles <= p.split_tiles;
    u64 part = (static_cast<u64>(token) * gridDim.z + split) * heads + kv_head * p.repeats;
    write(all, whole ? p.out + unit * Tile::HEAD : p.sums + part * Tile::HEAD, p.ends + 2 * part, p.repeats, whole);
}

}  // namespace fireq::decode_attention
