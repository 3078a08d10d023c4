#pragma once
#include "ptx/types.cuh"
#include "ptx/warp.cuh"

// A head in the registers of a few lanes: each lane holds `PAIRS` neighbours of the first half and their rope partners
// in the second.

namespace fireq {

template <int HEAD_, int PAIRS_, int LANES_>
struct HeadGroup {
    static constexpr int HEAD = HEAD_;
    static constexpr int HALF = HEAD / 2;
    /// From one head of E4M3 codes to the next.
    static constexpr int PITCH = pitch(HEAD);
    static constexpr int PAIRS = PAIRS_;
    static constexpr int LANES = LANES_;
    static constexpr int ACTIVE = HALF / PAIRS;

    static_assert(HEAD % 2 == 0 && HALF % PAIRS == 0, "halves of a head are whole vectors of pairs");
    static_assert(ACTIVE <= LANES && LANES <= WARP, "a head fits into the lanes of one warp");

    /// This thread's lane in its group.
    static __device__ int lane() { return static_cast<int>(threadIdx.x) % LANES; }

    /// Whether this lane holds channels at all.
    static __device__ bool active() { return lane() < ACTIVE; }

    /// The channel of the head that element `n` of `2·PAIRS` is.
    static __device__ int channel(int n) { return n % PAIRS + lane() * PAIRS + (n < PAIRS ? 0 : HALF); }
};

}  // namespace fireq
