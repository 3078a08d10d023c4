#pragma once
#include "ptx/types.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"
#include "tile/prefill.cuh"
#include "tile/ring.cuh"

// What prefill attention multiplies: one thread asks for a tile of queries, and for tiles of keys and values as stages are let
// go.

namespace fireq {

/// Readies the barriers. A stage is full when its bytes are there, and empty when every warp has let it go, in all CTAs of the
/// cluster: each writes to the stages of all.
template <typename Tile>
__device__ inline void initialize(const PrefillMemory<Tile>& memory) {
    initialize(memory.queries_full(), 1);
#pragma unroll
    for (u32 stage = 0; stage < Tile::STAGES; ++stage) {
        initialize(memory.keys_full(stage), 1);
        initialize(memory.values_full(stage), 1);
        initialize(memory.keys_empty(stage), Tile::CONSUMERS / 32 * Tile::CLUSTER);
        initialize(memory.values_empty(stage), Tile::CONSUMERS / 32 * Tile::CLUSTER);
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

/// The queries of a CTA, and the keys that it reads.
struct PrefillPlace {
    i32 query;    // their first row
    i32 head;     // query head
    i32 kv_head;  // head of keys and values
    i32 key;      // first position in the workspace
    u32 tiles;    // of keys
    i32 rank;     // of the CTA in its cluster
};

/// A tile that goes to every CTA of the cluster.
template <typename Tile>
__device__ inline void copy_to_all(void* to, const TensorMap& map, i32 column, i32 row, i32 plane, u64* barrier) {
    if constexpr (Tile::CLUSTER == 1) {
        copy_tile(to, map, column, row, plane, barrier);
    } else {
        constexpr u16 ALL = (1 << Tile::CLUSTER) - 1;
        copy_tile_to(ALL, to, map, column, row, plane, barrier);
    }
}

/// What one thread asks for.
template <typename Tile>
__device__ inline void produce(const PrefillMemory<Tile>& memory, const TensorMap& q, const TensorMap& k, const TensorMap& v,
                               const PrefillPlace& place) {
    arrive_expecting(memory.queries_full(), Tile::QUERY_BYTES);
#pragma unroll
    for (int panel = 0; panel < Tile::PANELS; ++panel) {
        copy_tile(memory.queries(0, panel), q, panel * Tile::PANEL, place.head, place.query, memory.queries_full());
    }
    i32 own_key = place.rank * Tile::KEY_SHARE, own_channel = place.rank * Tile::VALUE_SHARE;
    Ring<Tile::STAGES> ring;
    for (u32 tile = 0; tile < place.tiles; ++tile) {
        i32 key = place.key + static_cast<i32>(tile * Tile::KEYS);
        u64* keys_full = memory.keys_full(ring.stage);
        wait(memory.keys_empty(ring.stage), ring.parity ^ 1);
        arrive_expecting(keys_full, Tile::KEY_BYTES);
#pragma unroll
        for (int panel = 0; panel < Tile::PANELS; ++panel) {
            copy_to_all<Tile>(memory.keys(ring.stage, panel) + own_key * Tile::PANEL, k, panel * Tile::PANEL, place.kv_head,
                              key + own_key, keys_full);
        }
        wait(memory.values_empty(ring.stage), ring.parity ^ 1);
        arrive_expecting(memory.values_full(ring.stage), Tile::COPIED_VALUE_BYTES);
        copy_to_all<Tile>(memory.values(ring.stage) + own_channel * Tile::KEYS, v, key, own_channel, place.kv_head,
                          memory.values_full(ring.stage));
        ring.advance();
    }
}

}  // namespace fireq
