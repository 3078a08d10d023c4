#pragma once
#include "ptx/types.cuh"

// The tile of a linear: 64 output channels for each consumer warpgroup × TOKENS tokens, K in steps of 128 numbers. STAGES of
// STEPS each are on their way. SPLIT CTAs share out the steps of a tile; CLUSTER neighbours in channels read the same tokens,
// and each asks for some of them on behalf of all: a cluster has SPLIT CTAs of each. Tensor cores keep few bits of what they add
// up: every PROMOTION steps what they have is added to sums in f32 registers, and they begin anew; with 0 they never do. With a BAND
// CTAs take one tile after another, in bands of so many token tiles, and the first steps of the next arrive while sums are written;
// with 0 each has one.

namespace fireq {

template <int TOKENS_, int WARPGROUPS_, int STAGES_, int STEPS_, int SPLIT_, int CLUSTER_, int GROUP_, int PROMOTION_, int BAND_>
struct LinearTile {
    static_assert(GROUP_ == 64 || GROUP_ == 128, "a step has one scale for each row, or two");
    static_assert(SPLIT_ >= 1 && SPLIT_ * CLUSTER_ <= 8, "portable clusters have at most eight CTAs");
    static_assert(CLUSTER_ >= 1 && CLUSTER_ <= STEPS_, "each CTA asks for the tokens of a step of its own");
    static_assert(STAGES_ >= 2, "a stage is decoded while another is on its way");
    static_assert(STEPS_ == 2 || STEPS_ == 4, "a step is decoded into one set of registers, the next into another");
    static_assert(PROMOTION_ == 0 || STEPS_ % PROMOTION_ == 0 || PROMOTION_ % STEPS_ == 0, "sums begin anew with a stage");
    static_assert(PROMOTION_ == 0 || TOKENS_ <= 128, "sums of 256 tokens leave no registers for others beside them");

    static constexpr int TOKENS = TOKENS_;
    static constexpr int WARPGROUPS = WARPGROUPS_;
    static constexpr int STAGES = STAGES_;
    static constexpr int STEPS = STEPS_;
    static constexpr int SPLIT = SPLIT_;
    static constexpr int CLUSTER = CLUSTER_;
    /// CTAs of a cluster. Those of a tile are neighbours.
    static constexpr int CTAS = SPLIT * CLUSTER;
    static constexpr int GROUP = GROUP_;
    static constexpr int PROMOTION = PROMOTION_;
    static constexpr int BAND = BAND_;
    static_assert(BAND == 0 || SPLIT == 1, "sums of other CTAs are read where the next tile's would be written");
    static constexpr int STEP = 128;
    static constexpr int CHANNELS = 64 * WARPGROUPS;
    static constexpr int CONSUMERS = 128 * WARPGROUPS;
    /// Consumers with 128 sums each take registers from a whole warpgroup of which one thread works.
    static constexpr bool TRADES_REGISTERS = TOKENS == 256 || (TOKENS == 128 && PROMOTION > 0);
    static constexpr int CONSUMER_REGISTERS = 240;
    static constexpr int PRODUCER_REGISTERS = 24;
    static constexpr int THREADS = CONSUMERS + (TRADES_REGISTERS ? 128 : 32);

    /// Codes of 64 rows and a step, in the order of fragments: 16 bytes for each lane and half step; then the scales.
    static constexpr int CODES = 64 * STEP / 2;
    static constexpr int RECORD = CODES + 64 * STEP / GROUP;
    static constexpr int TOKEN_BYTES = TOKENS * STEP;
    static constexpr int STEP_BYTES = TOKEN_BYTES + WARPGROUPS * RECORD;

    /// Sums on their way out: a row for each token, four floats longer than it need be, so that lanes that write a
    /// fragment's columns meet no bank twice.
    static constexpr int SUM_ROW = CHANNELS + 4;
    static constexpr int SUM_BYTES = TOKENS * SUM_ROW * 4;

    static constexpr int RECORDS_AT = STAGES * STEPS * TOKEN_BYTES;
    static constexpr int STEPS_END = STAGES * STEPS * STEP_BYTES;
    /// Sums take the place of the last steps, unless those of another tile follow.
    static constexpr int SUMS_AT = BAND > 0 ? (STEPS_END + 15) / 16 * 16 : 0;
    static constexpr int SUMS_END = SUMS_AT + SUM_BYTES;
    static constexpr int BARRIERS_AT = ((STEPS_END > SUMS_END ? STEPS_END : SUMS_END) + 15) / 16 * 16;
    static constexpr int SHARED_BYTES = BARRIERS_AT + 2 * STAGES * 8;

    /// Whether the tensor cores' sums begin anew with step `n` of a stage behind `done` steps: where every stage is alike, the
    /// mainloop does not branch. Without promotion they go on from zeros.
    static __device__ bool begins(u32 done, u32 n) {
        if constexpr (PROMOTION == 0) return false;
        else if constexpr (PROMOTION <= STEPS) return n % PROMOTION == 0;
        else return n == 0 && done % PROMOTION == 0;
    }

    static_assert(SHARED_BYTES <= 227 * 1024, "a CTA has 227 KiB of shared memory");
};

}  // namespace fireq
