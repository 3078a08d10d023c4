#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"
#include "mainloop/prefill.cuh"
#include "mainloop/prefill_source.cuh"
#include "epilogue/prefill.cuh"

// Attention of many queries over FP8 keys and values (FireQ section 6): one CTA for 128 queries of a head, those with
// the most keys first. CTAs of a cluster have neighbouring heads of the same queries.

namespace fireq::prefill {

/// The queries of a CTA: some of one sequence's, in a row.
struct Queries {
    u32 first;  // of all rows of queries
    u32 count;  // at least 1
    u32 past;   // keys before the first query's own; where not causal, as many as make all of the sequence's with `count`
    u32 key;    // the position in the workspace of the sequence's first key
};

struct Params {
    TensorMap q;             // [tokens, heads, HEAD] E4M3, heads a pitch apart, tiles of 128 × 1 × PANEL
    TensorMap k;             // [positions, kv_heads, HEAD] E4M3, likewise, tiles of KEY_SHARE × 1 × PANEL
    TensorMap v;             // [kv_heads, HEAD, positions] E4M3, sixteen in the order of products; tiles of 1 × VALUE_SHARE × 128
    const Queries* tiles;    // of each cluster in x, or null: of a single sequence
    const float* q_scales;   // [tokens, heads]
    void* out;               // [tokens, heads·HEAD], f32 or bf16
    float factor;            // the attention's scale · log2(e)
    u32 tokens;              // of the single sequence
    u32 past;                // before it
    u32 heads;
    u32 repeats;  // query heads of a kv head
};

template <typename Tile>
__device__ inline Queries queries_of(const Params& p) {
    u32 cluster = blockIdx.x / Tile::CLUSTER;
    if (p.tiles != nullptr) return p.tiles[cluster];
    u32 first = (gridDim.x / Tile::CLUSTER - 1 - cluster) * Tile::QUERIES;
    u32 count = min(p.tokens - first, static_cast<u32>(Tile::QUERIES));
    return {first, count, p.past + (Tile::CAUSAL ? first : p.tokens - count), 0};
}

/// The query head of a CTA.
template <typename Tile>
__device__ inline u32 head_of() {
    return blockIdx.y * Tile::CLUSTER + blockIdx.x % Tile::CLUSTER;
}

/// What a consumer does.
template <typename Tile, typename Out>
__device__ inline void compute(const Params& p, const PrefillMemory<Tile>& memory, const Queries& queries, u32 tiles) {
    take_registers_up_to<Tile::CONSUMER_REGISTERS>();
    u32 first = threadIdx.x / WARPGROUP * 64, row = first + static_cast<u32>(own_row()), head = head_of<Tile>();
    u32 visible = queries.past + (Tile::CAUSAL ? first + 1 : queries.count);
    Attention<Tile> attention{memory, {}, static_cast<i32>(visible), {}, {}, {}};
#pragma unroll
    for (u32 r = 0; r < ROWS; ++r) {
        u64 token = queries.first + min(row + 8 * r, queries.count - 1);
        attention.softmax.factor[r] = p.q_scales[token * p.heads + head] * p.factor;
        attention.softmax.highest[r] = float_of_bits(0xff800000u);
    }
    attention.run(tiles);
    u64 apart = static_cast<u64>(p.heads) * Tile::HEAD;
    Out* out = static_cast<Out*>(p.out) + (queries.first + row) * apart + head * Tile::HEAD;
    i32 left = static_cast<i32>(queries.count) - static_cast<i32>(row);
    write_rows<Tile>(attention.o, out, 8 * apart, left > 8 ? 2 : left > 0 ? 1 : 0);
    // A CTA's barriers live until those who write to its stages have let go of their last.
    if constexpr (Tile::CLUSTER > 1) synchronize_cluster();
}

template <typename Tile, typename Out>
__device__ inline void run(const Params& p) {
    extern __shared__ __align__(1024) u8 shared[];
    PrefillMemory<Tile> memory{shared};
    Queries queries = queries_of<Tile>(p);
    u32 tiles = (queries.past + queries.count + Tile::KEYS - 1) / Tile::KEYS;
    if (threadIdx.x == 0) initialize(memory);
    write_ones(memory);
    // Nobody arrives at a barrier, or copies to a CTA, before its barriers are ready.
    if constexpr (Tile::CLUSTER > 1) {
        synchronize_cluster();
    } else {
        synchronize();
    }
    wait_for_earlier_launches();
    let_later_launches_begin();
    if (threadIdx.x >= Tile::CONSUMERS) {
        give_registers_up_to<Tile::PRODUCER_REGISTERS>();
        if (threadIdx.x != Tile::CONSUMERS) return;
        i32 head = static_cast<i32>(head_of<Tile>()), kv_head = static_cast<i32>(head_of<Tile>() / p.repeats);
        i32 first = static_cast<i32>(queries.first), key = static_cast<i32>(queries.key);
        produce(memory, p.q, p.k, p.v, {first, head, kv_head, key, tiles, static_cast<i32>(blockIdx.x % Tile::CLUSTER)});
    } else {
        compute<Tile, Out>(p, memory, queries, tiles);
    }
}

}  // namespace fireq::prefill
