#pragma once
#include "ptx/launch.cuh"
#include "tile/angle.cuh"

// Cosines and sines of position · inv_freq, cosines first: one thread for an angle. The product is rounded to f32, as
// in the models' training code.

namespace fireq::rope_table {

struct Params {
    const i32* positions;   // [tokens]
    const float* inv_freq;  // [HEAD/2]
    float* table;           // [tokens, HEAD]
    u32 tokens;
};

template <int HEAD, int THREADS>
__device__ inline void run(const Params& p) {
    constexpr int HALF = HEAD / 2;
    u32 unit = blockIdx.x * THREADS + threadIdx.x;
    u32 token = unit / HALF, i = unit % HALF;
    if (token >= p.tokens) return;
    float angle = static_cast<float>(p.positions[token]) * p.inv_freq[i];
    float* row = p.table + static_cast<i64>(token) * HEAD;
    wait_for_earlier_launches();
    let_later_launches_begin();
    cosine_and_sine(angle, row[i], row[i + HALF]);
}

}  // namespace fireq::rope_table
