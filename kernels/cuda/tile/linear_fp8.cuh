#pragma once
#include "ptx/types.cuh"

// The tile of a product of FP8 weights with FP8 tokens. Output channels are rows of the tensor cores' sums, tokens their columns.

namespace fireq {

/// How the two consumer warpgroups share out tiles: each has 64 channels of every tile; or every other tile of 64 channels,
/// so that one's sums are written while the other multiplies.
enum class Schedule { TOGETHER, ALTERNATELY };

template <int TOKENS_, int STAGES_, int CLUSTER_, int PROMOTION_, Schedule SCHEDULE_>
struct LinearFp8Tile {
    static_assert(TOKENS_ == 128 || TOKENS_ == 192 || TOKENS_ == 256, "a product of a warpgroup has all tokens of a tile");
    static_assert(CLUSTER_ == 1 || CLUSTER_ == 2, "a pair of CTAs shares tokens, or none does");
    static_assert(PROMOTION_ == 0 || TOKENS_ <= 192, "a second set of sums of 256 tokens finds no registers");
    static_assert(STAGES_ >= 2, "a step is multiplied while another is on its way");

    static constexpr int TOKENS = TOKENS_;
    static constexpr int STAGES = STAGES_;
    /// CTAs that share the tokens of a tile: neighbours in channels. Tokens are what is worth sharing, since a tile has at
    /// least as many of them as channels.
    static constexpr int CLUSTER = CLUSTER_;
    /// Steps after which the tensor cores' sums are added to others in registers, since theirs are short; 0: never.
    static constexpr int PROMOTION = PROMOTION_;
    static constexpr bool ALTERNATES = SCHEDULE_ == Schedule::ALTERNATELY;
    static constexpr int STEP = 128;
    static constexpr int WARPGROUPS = 2;
    static constexpr int CONSUMERS = 128 * WARPGROUPS;
    static constexpr int THREADS = CONSUMERS + 128;
    static constexpr int CONSUMER_REGISTERS = 240;
    static constexpr int PRODUCER_REGISTERS = 24;
    static constexpr int CHANNELS = ALTERNATES ? 64 : 64 * WARPGROUPS;
    /// Warps that multiply a step.
    static constexpr int OWNERS = ALTERNATES ? 4 : 4 * WARPGROUPS;

    static constexpr int TOKEN_BYTES = TOKENS * STEP;
    static constexpr int WEIGHT_BYTES = CHANNELS * STEP;
    static constexpr int STEP_BYTES = TOKEN_BYTES + WEIGHT_BYTES;
    /// Tokens of a step that one CTA of the cluster asks for, on behalf of all.
    static constexpr int SHARE = TOKENS / CLUSTER;

    /// Sums on their way out, sixteen tokens of 64 channels at a time: two buffers for each warpgroup. Behind the channels of a
    /// row is its token's scale; rows are four floats longer than channels, so that lanes that write a fragment's columns
    /// meet no bank twice.
    static constexpr int CHUNK = 16;
    static constexpr int CHUNKS = TOKENS / CHUNK;
    static constexpr int SCALE_AT = 64;
    static constexpr int STAGED_ROW = 64 + 4;
    static constexpr int STAGED_BYTES = CHUNK * STAGED_ROW * 4;

    static constexpr int WEIGHTS_AT = STAGES * TOKEN_BYTES;
    static constexpr int STAGED_AT = STAGES * STEP_BYTES;
    static constexpr int BARRIERS_AT = STAGED_AT + 2 * WARPGROUPS * STAGED_BYTES;
    static constexpr int SHARED_BYTES = BARRIERS_AT + 8 * (2 * STAGES + WARPGROUPS);

    static_assert(SHARED_BYTES <= 227 * 1024, "a CTA has 227 KiB of shared memory");
};

}  // namespace fireq
