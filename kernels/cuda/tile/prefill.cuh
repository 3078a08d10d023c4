#pragma once
#include "ptx/types.cuh"

// The tile of prefill attention: 64 queries for each of two consumer warpgroups, 128 keys at a time.

namespace fireq {

/// Where, among the sixteen keys of a block, the values of the n-th lie: a lane that has probabilities of keys 2t, 2t + 1,
/// 2t + 8 and 2t + 9 has them as four neighbours of a product's operand.
__device__ constexpr int value_position(int n) { return n % 8 / 2 * 4 + n / 8 * 2 + n % 2; }

template <int HEAD_, int STAGES_, int IN_FLIGHT_>
struct PrefillTile {
    static constexpr int HEAD = HEAD_;
    static constexpr int STAGES = STAGES_;
    /// While the softmax of a tile runs, the values of the tile before are multiplied; with 3, the keys of the next, too.
    static constexpr int IN_FLIGHT = IN_FLIGHT_;
    static constexpr int WARPGROUPS = 2;
    static constexpr int QUERIES = 64 * WARPGROUPS;
    static constexpr int KEYS = 128;
    static constexpr int CONSUMERS = 128 * WARPGROUPS;
    static constexpr int THREADS = CONSUMERS + 128;
    /// Eight more rows of values, of which the first holds ones: their products are the sums of rounded probabilities.
    static constexpr int VALUE_ROWS = HEAD + 8;
    static constexpr int SUMS = VALUE_ROWS / 2;

    static_assert(HEAD == 64 || HEAD == 128, "rows of keys are one span of a swizzle");
    static_assert(IN_FLIGHT == 2 || IN_FLIGHT == 3, "values, softmax, and with 3 scores of different tiles");

    static constexpr int QUERY_BYTES = QUERIES * HEAD;
    static constexpr int KEY_BYTES = KEYS * HEAD;
    static constexpr int VALUE_BYTES = VALUE_ROWS * KEYS;
    static constexpr int COPIED_VALUE_BYTES = HEAD * KEYS;
    static constexpr int KEYS_AT = QUERY_BYTES;
    static constexpr int VALUES_AT = KEYS_AT + STAGES * KEY_BYTES;
    static constexpr int BARRIERS_AT = VALUES_AT + STAGES * VALUE_BYTES;
    static constexpr int SHARED_BYTES = BARRIERS_AT + 8 * (1 + 4 * STAGES);

    static_assert(SHARED_BYTES <= 227 * 1024, "a CTA has 227 KiB of shared memory");
};

}  // namespace fireq
