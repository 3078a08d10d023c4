#pragma once
#include "ptx/types.cuh"

// Stages of a pipeline, one after another, again and again.

namespace fireq {

/// A place in the ring of stages, and the parity of its phase.
template <int STAGES>
struct Ring {
    u32 stage = 0, parity = 0;

    __device__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }

    /// Passes over as many stages.
    __device__ void skip(u32 count) {
        u32 ahead = stage + count;
        stage = ahead % STAGES;
        parity ^= ahead / STAGES & 1;
    }
};

}  // namespace fireq
