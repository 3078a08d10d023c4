#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
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

/// Four channels of a head, from `channel` on.
__device__ inline void combine_four(const Params& p, u64 first, u32 parts, u32 pitch, u32 channel, float highest, float* to) {
    float o[4] = {}, total = 0.0f;
#pragma unroll 4
    for (u32 part = 0; part < parts; ++part) {
        u64 unit = first + part * p.heads;
        float weight = power_of_two(p.ends[2 * unit] - highest), sums[4];
        load_chunk(p.sums + unit * pitch + channel, sums);
        total = multiply_add(p.ends[2 * unit + 1], weight, total);
#pragma unroll
        for (int n = 0; n < 4; ++n) o[n] = multiply_add(sums[n], weight, o[n]);
    }
    float share = 1.0f / total;
#pragma unroll
    for (int n = 0; n < 4; ++n) o[n] *= share;
    store_chunk(to + channel, o);
}

template <int HEAD, int WARPS>
__device__ inline void run(const Params& p) {
    static_assert(HEAD % 4 == 0, "lanes have four channels");
    u32 token = blockIdx.x, head = blockIdx.y * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 parts = static_cast<u32>(p.positions[token]) / p.split_keys + 1;
    wait_for_earlier_launches();
    let_later_launches_begin();
    if (head >= p.heads || parts == 1) return;
    u64 first = static_cast<u64>(token) * p.splits * p.heads + head;
    float highest = float_of_bits(0xff800000u);
    for (u32 part = lane; part < parts; part += WARP) highest = larger(highest, p.ends[2 * (first + part * p.heads)]);
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) highest = larger(highest, exchange(highest, mask));
    float* to = p.out + (static_cast<u64>(token) * p.heads + head) * HEAD;
    for (u32 channel = lane * 4; channel < HEAD; channel += 4 * WARP) {
        combine_four(p, first, parts, HEAD, channel, highest, to);
    }
}

}  // namespace fireq::combine
