#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "tile/chunk.cuh"

// One attention of parts over different keys, in their order: a warp for a token and head. Exponents are whole numbers, so
// that parts are scaled by powers of two.

namespace fireq::combine {

struct Params {
    const float* sums;     // [tokens, splits, heads, HEAD]
    const float* ends;     // [tokens, splits, heads, 2]: exponents, and sums of probabilities
    const i32* positions;  // [tokens]: the last key that a token sees
    float* out;            // [tokens, heads·HEAD]; that of tokens in one part is there already
    u32 split_keys;        // keys of a part
    u32 splits;            // parts that there is room for
    u32 heads;
};

template <int HEAD, int WARPS>
__device__ inline void run(const Params& p) {
    constexpr int CHANNELS = HEAD / WARP;
    u32 token = blockIdx.x, head = blockIdx.y * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 parts = static_cast<u32>(p.positions[token]) / p.split_keys + 1;
    if (head >= p.heads || parts == 1) return;
    u64 first = static_cast<u64>(token) * p.splits * p.heads + head;
    float highest = float_of_bits(0xff800000u);
    for (u32 part = lane; part < parts; part += WARP) highest = larger(highest, p.ends[2 * (first + part * p.heads)]);
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) highest = larger(highest, exchange(highest, mask));
    float o[CHANNELS] = {}, total = 0.0f;
#pragma unroll 4
    for (u32 part = 0; part < parts; ++part) {
        u64 unit = first + part * p.heads;
        float weight = power_of_two(p.ends[2 * unit] - highest), sums[CHANNELS];
        load_chunk(p.sums + unit * HEAD + lane * CHANNELS, sums);
        total = multiply_add(p.ends[2 * unit + 1], weight, total);
#pragma unroll
        for (int n = 0; n < CHANNELS; ++n) o[n] = multiply_add(sums[n], weight, o[n]);
    }
    float share = 1.0f / total;
#pragma unroll
    for (int n = 0; n < CHANNELS; ++n) o[n] *= share;
    store_chunk(p.out + (static_cast<u64>(token) * p.heads + head) * HEAD + lane * CHANNELS, o);
}

}  // namespace fireq::combine
