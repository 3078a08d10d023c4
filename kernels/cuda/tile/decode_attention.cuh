#pragma once
#include "ptx/types.cuh"

// The tile of decode attention: the query heads of one kv head, over 64 keys at a time. Products have keys or channels as
// rows and query heads as columns, of which those beyond the last are idle.

namespace fireq {

template <typename Page_, int QUERIES_, int STAGES_, int STEP_>
struct DecodeTile {
    using Page = Page_;
    static constexpr int HEAD = Page::HEAD;
    static constexpr int PITCH = Page::PITCH;
    static constexpr int QUERIES = QUERIES_;
    static constexpr int STAGES = STAGES_;
    static constexpr int KEYS = Page::TILE;
    static constexpr int BLOCKS = Page::BLOCKS;
    static constexpr int CONSUMERS = 128;
    static constexpr int THREADS = CONSUMERS + 32;
    /// Tiles whose softmax is one: what it takes beside exponentials is shared.
    static constexpr int STEP = STEP_;
    /// What a lane has of 64 rows, and the columns that these are of.
    static constexpr int SUMS = QUERIES / 2;
    static constexpr int COLUMNS = QUERIES / 4;

    static_assert(QUERIES == 8 || QUERIES == 16, "products have eight or sixteen columns");
    static_assert(STEP == 2 || STEP == 4, "what is left of whole steps is done in halves");
    static_assert(STAGES % STEP == 0, "stages of a step's tiles are neighbours");

    /// Operand B, queries and probabilities: sixteen columns of K of all queries lie together.
    static constexpr int SIXTEEN = 16 * QUERIES;
    static constexpr int QUERY_BYTES = QUERIES * BLOCKS * 64;
    static constexpr int PROBABILITY_BYTES = QUERIES * KEYS;
    static constexpr int QUERIES_AT = STAGES * Page::BYTES;
    static constexpr int PROBABILITIES_AT = QUERIES_AT + QUERY_BYTES;
    static constexpr int MOST_AT = PROBABILITIES_AT + STEP * PROBABILITY_BYTES;
    static constexpr int BARRIERS_AT = MOST_AT + QUERIES * 16;
    static constexpr int SHARED_BYTES = BARRIERS_AT + 16 * STAGES;

    static_assert(Page::BYTES % 16 == 0, "copies and loads are of 16 bytes");
    static_assert(SHARED_BYTES <= 227 * 1024, "a CTA has 227 KiB of shared memory");

    /// The query of a column of this lane.
    static __device__ u32 query(int column) {
        return static_cast<u32>(column / 2 * 8 + column % 2) + threadIdx.x % 4 * 2;
    }

    /// The column of a lane's n-th sum, and whether it is of its second row.
    static __device__ constexpr int column(int n) { return n / 4 * 2 + n % 2; }
    static __device__ constexpr int row(int n) { return n / 2 % 2; }
};

/// Shared memory of decode attention.
template <typename Tile>
struct DecodeMemory {
    u8* base;

    __device__ u8* tile(u32 stage) const { return base + stage * Tile::Page::BYTES; }
    __device__ u8* queries() const { return base + Tile::QUERIES_AT; }
    __device__ u8* probabilities(u32 n) const { return base + Tile::PROBABILITIES_AT + n * Tile::PROBABILITY_BYTES; }
    /// The largest scores of a query, one for each warp.
    __device__ float* most(u32 query) const { return reinterpret_cast<float*>(base + Tile::MOST_AT) + 4 * query; }
    __device__ u64* full(u32 stage) const { return reinterpret_cast<u64*>(base + Tile::BARRIERS_AT) + stage; }
    __device__ u64* empty(u32 stage) const { return full(stage + Tile::STAGES); }
};

}  // namespace fireq
