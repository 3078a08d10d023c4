#pragma once
#include "epilogue/heads.cuh"
#include "mainloop/head.cuh"

// Between the projections and attention: rope, a scale and a shift per channel, then FP8 for queries, and INT4 into the
// caches for keys and values. For prefill, keys and values also go, dequantized, into an FP8 workspace: keys as they are,
// values transposed and behind the last token zero until its block of sixteen ends. One CTA for a head and the tokens of BLOCK positions that start at a multiple of BLOCK.

namespace fireq::qkv {

/// Positions of a CTA: sixteen codes of a channel of transposed values are one store.
inline constexpr int BLOCK = 16;

struct Params {
    const float* q;        // [tokens, q_stride]: Q_HEADS heads
    const float* k;        // [tokens, k_stride]: KV_HEADS heads
    const float* v;        // [tokens, v_stride]: KV_HEADS heads
    const float* table;    // [tokens, HEAD]: cosines, then sines
    const float* q_scale;  // [Q_HEADS·HEAD], or null; likewise the three below
    const float* q_shift;
    const float* k_scale;
    const float* k_shift;
    e4m3* q_codes;       // [tokens, Q_HEADS·HEAD]
    float* q_scales;     // [tokens, Q_HEADS]
    u8* k_codes;         // [context, KV_HEADS·HEAD/2]
    void* k_scales;      // [context, KV_HEADS]
    u8* v_codes;         // as for keys
    void* v_scales;
    e4m3* k_workspace;   // [context, KV_HEADS·HEAD], or null
    e4m3* v_workspace;   // [KV_HEADS·HEAD, workspace_stride], blocks of positions permuted, or null
    u32 workspace_stride;  // a multiple of BLOCK
    u32 q_stride;
    u32 k_stride;
    u32 v_stride;
    u32 past;
    u32 tokens;
};

/// The token of this thread's group; negative or from `tokens` on where the CTA's positions are not of this step.
template <typename Group>
__device__ inline int token_of(const Params& p) {
    int block = static_cast<int>(p.past / BLOCK + blockIdx.x);
    return block * BLOCK + static_cast<int>(threadIdx.x) / Group::LANES - static_cast<int>(p.past);
}

template <typename Group, int Q_HEADS, int KV_HEADS, Fit K_FIT, Fit V_FIT, typename K_SCALE, typename V_SCALE>
__device__ inline void run(const Params& p) {
    constexpr int ROW = KV_HEADS * Group::HEAD;
    int token = token_of<Group>(p), head = static_cast<int>(blockIdx.y);
    bool active = Group::active() && token >= 0 && token < static_cast<int>(p.tokens);
    i64 at = active ? token : 0, position = p.past + at;
    float x[2 * Group::PAIRS];
    if (head < Q_HEADS) {
        load_head<Group>(p.q + at * p.q_stride + head * Group::HEAD, active, x);
        turn<Group>(p.table + at * Group::HEAD, active, x);
        scale_and_shift<Group>(p.q_scale, p.q_shift, head, active, x);
        i64 unit = at * Q_HEADS + head;
        quantize_query<Group>(x, active, p.q_codes + unit * Group::HEAD, p.q_scales + unit);
        return;
    }
    head -= Q_HEADS;
    if (head < KV_HEADS) {
        load_head<Group>(p.k + at * p.k_stride + head * Group::HEAD, active, x);
        turn<Group>(p.table + at * Group::HEAD, active, x);
        scale_and_shift<Group>(p.k_scale, p.k_shift, head, active, x);
        auto* scales = static_cast<K_SCALE*>(p.k_scales) + position * KV_HEADS + head;
        append<K_FIT, Group>(x, active, p.k_codes + (position * ROW + head * Group::HEAD) / 2, scales);
        if (p.k_workspace != nullptr) {
            store_elements<Group>(x, active, p.k_workspace + position * ROW + head * Group::HEAD);
        }
        return;
    }
    head -= KV_HEADS;
    load_head<Group>(p.v + at * p.v_stride + head * Group::HEAD, active, x);
    auto* scales = static_cast<V_SCALE*>(p.v_scales) + position * KV_HEADS + head;
    append<V_FIT, Group>(x, active, p.v_codes + (position * ROW + head * Group::HEAD) / 2, scales);
    if (p.v_workspace != nullptr) {
        int start = static_cast<int>(p.past / BLOCK + blockIdx.x) * BLOCK;
        e4m3* channels = p.v_workspace + static_cast<i64>(head) * Group::HEAD * p.workspace_stride + start;
        store_transposed<Group, BLOCK>(x, channels, p.workspace_stride, static_cast<int>(p.past) - start);
    }
}

}  // namespace fireq::qkv
