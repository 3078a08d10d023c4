#pragma once
#include "ptx/types.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"

// The tile of prefill attention: 64 queries for each of two consumer warpgroups, 128 keys at a time.

namespace fireq {

/// Where, among the sixteen keys of a block, the values of the n-th lie: a lane that has probabilities of keys 2t, 2t + 1,
/// 2t + 8 and 2t + 9 has them as four neighbours of a product's operand.
__device__ constexpr int value_position(int n) { return n % 8 / 2 * 4 + n / 8 * 2 + n % 2; }

template <int HEAD_, int STAGES_, int IN_FLIGHT_, bool PROMOTES_, int CLUSTER_, bool CAUSAL_>
struct PrefillTile {
    static_assert(HEAD_ % 4 == 0 && HEAD_ <= 256, "lanes store four channels, and copies have at most 256 rows of values");
    static_assert(IN_FLIGHT_ == 2 || IN_FLIGHT_ == 3 || (IN_FLIGHT_ == 1 && PROMOTES_),
                  "values, softmax, and with 3 scores of different tiles; with 1, sums of a panel are added at once");
    static_assert(HEAD_ <= (IN_FLIGHT_ == 1 ? 256 : (PROMOTES_ ? 256 : 512) >> (IN_FLIGHT_ - 1)),
                  "two sets of sums, or of scores, find registers");
    static_assert(CLUSTER_ == 1 || CLUSTER_ == 2, "a pair of CTAs shares keys and values, or none does");
    static_assert(STAGES_ >= 2, "a tile is multiplied while another is on its way");

    /// Channels of a head, and those that copies fill up with zeros: rows are whole spans of a swizzle.
    static constexpr int HEAD = HEAD_;
    static constexpr int WIDE = HEAD <= 64 ? 64 : HEAD <= 128 ? 128 : 256;
    static constexpr int STAGES = STAGES_;
    /// While the softmax of a tile runs, the values of the tile before are multiplied; with 3, the keys of the next, too; with
    /// 1, only what the other warpgroup multiplies.
    static constexpr int IN_FLIGHT = IN_FLIGHT_;
    /// Sums of a tile of keys are added to others in registers, since the tensor cores' are short.
    static constexpr bool PROMOTES = PROMOTES_;
    /// CTAs that share tiles of keys and values: of neighbouring query heads of one kv head, and of the same queries, so that
    /// they read as many. Each asks for its share of a tile, which goes to all.
    static constexpr int CLUSTER = CLUSTER_;
    /// A query sees the keys up to its own. Otherwise each sees all that the last of its tile does.
    static constexpr bool CAUSAL = CAUSAL_;
    static constexpr int WARPGROUPS = 2;
    static constexpr int QUERIES = 64 * WARPGROUPS;
    static constexpr int KEYS = 128;
    static constexpr int CONSUMERS = 128 * WARPGROUPS;
    static constexpr int THREADS = CONSUMERS + 128;
    static constexpr int CONSUMER_REGISTERS = 240;
    static constexpr int PRODUCER_REGISTERS = 24;

    /// Queries and keys lie in panels of this many channels, one behind the other.
    static constexpr int PANEL = WIDE == 64 ? 64 : 128;
    static constexpr int PANELS = WIDE / PANEL;
    /// Values are multiplied a panel at a time; the last has eight more rows, of which the first holds ones: their products
    /// are the sums of rounded probabilities.
    static constexpr int LAST_SUMS = (PANEL + 8) / 2;
    static constexpr int VALUE_ROWS = WIDE + 8;

    static constexpr int QUERY_BYTES = QUERIES * WIDE;
    static constexpr int KEY_BYTES = KEYS * WIDE;
    static constexpr int VALUE_BYTES = VALUE_ROWS * KEYS;
    static constexpr int COPIED_VALUE_BYTES = WIDE * KEYS;
    /// Keys, and channels of values, of a CTA's share.
    static constexpr int KEY_SHARE = KEYS / CLUSTER;
    static constexpr int VALUE_SHARE = WIDE / CLUSTER;
    static constexpr int KEYS_AT = QUERY_BYTES;
    static constexpr int VALUES_AT = KEYS_AT + STAGES * KEY_BYTES;
    static constexpr int BARRIERS_AT = VALUES_AT + STAGES * VALUE_BYTES;
    static constexpr int SHARED_BYTES = BARRIERS_AT + 8 * (1 + 4 * STAGES);

    static_assert(SHARED_BYTES <= 227 * 1024, "a CTA has 227 KiB of shared memory");
};

/// Shared memory of prefill attention.
template <typename Tile>
struct PrefillMemory {
    u8* base;

    /// Panels are `Tile::QUERIES` or `Tile::KEYS` rows apart.
    __device__ u8* queries(u32 warpgroup, u32 panel) const {
        return base + (panel * Tile::QUERIES + warpgroup * 64) * Tile::PANEL;
    }
    __device__ u8* keys(u32 stage, u32 panel) const {
        return base + Tile::KEYS_AT + stage * Tile::KEY_BYTES + panel * Tile::KEYS * Tile::PANEL;
    }
    __device__ u8* values(u32 stage) const { return base + Tile::VALUES_AT + stage * Tile::VALUE_BYTES; }
    __device__ u64* barrier(u32 n) const { return reinterpret_cast<u64*>(base + Tile::BARRIERS_AT) + n; }
    __device__ u64* queries_full() const { return barrier(0); }
    __device__ u64* keys_full(u32 stage) const { return barrier(1 + stage); }
    __device__ u64* values_full(u32 stage) const { return barrier(1 + Tile::STAGES + stage); }
    __device__ u64* keys_empty(u32 stage) const { return barrier(1 + 2 * Tile::STAGES + stage); }
    __device__ u64* values_empty(u32 stage) const { return barrier(1 + 3 * Tile::STAGES + stage); }

    /// This warp reads nothing of a stage any more: the CTAs that write to it learn that.
    static __device__ void release(u64* empty) {
        u32 lane = threadIdx.x % WARP;
        if constexpr (Tile::CLUSTER == 1) {
            if (lane == 0) arrive(empty);
        } else {
            if (lane < Tile::CLUSTER) arrive_at(empty, lane);
        }
    }
};

/// Sums of products in registers; those of probabilities alone are the columns behind the last panel's. Panels are apart, since
/// each is the operand of products of its own.
template <typename Tile>
struct PrefillSums {
    float first[Tile::PANELS > 1 ? 64 : 1] = {};
    float last[Tile::LAST_SUMS] = {};

    /// The n-th of a lane, as if there was one panel.
    __device__ float at(int n) const {
        if constexpr (Tile::PANELS > 1) return n < 64 ? first[n] : last[n - 64];
        return last[n];
    }
};

}  // namespace fireq
