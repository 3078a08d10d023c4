#pragma once
#include "ptx/launch.cuh"
#include "epilogue/heads.cuh"
#include "epilogue/page.cuh"
#include "mainloop/head.cuh"

// Between the projections and attention: rope, a scale and a shift per channel, then FP8 for queries, and INT4 into the
// pages of the cache for keys and values. For prefill, keys and values also go, dequantized, into an FP8
// workspace: keys as they are, values transposed and behind the last token zero until its block of sixteen ends. One CTA for
// a head and a run.

namespace fireq::qkv {

/// Positions of a CTA, at most: values of a channel are 16 bytes of the workspace, and of two channels 16 bytes of a page.
inline constexpr int BLOCK = 16;

/// Neighbouring tokens of a sequence whose positions lie in one block.
struct Run {
    u32 sequence;
    u32 token;     // the first
    u32 position;  // of the first
    u32 count;
    u32 key;       // the workspace's position of the sequence's first key, a multiple of BLOCK
};

struct Params {
    const float* q;        // [tokens, q_stride]: Q_HEADS heads
    const float* k;        // [tokens, k_stride]: KV_HEADS heads
    const float* v;        // [tokens, v_stride]: KV_HEADS heads
    const float* table;    // [tokens, HEAD]: cosines, then sines
    const float* q_scale;  // [Q_HEADS·HEAD], or null; likewise the three below
    const float* q_shift;
    const float* k_scale;
    const float* k_shift;
    e4m3* q_codes;         // [tokens, Q_HEADS·PITCH]
    float* q_scales;       // [tokens, Q_HEADS]
    const Run* runs;
    const u32* tables;     // [sequences, table_stride]: pages of a sequence, in order
    u8* pages;             // page n begins n·page_stride bytes on
    e4m3* k_workspace;     // [positions, KV_HEADS·PITCH], or null
    e4m3* v_workspace;     // [KV_HEADS·HEAD, workspace_stride], blocks of positions permuted, or null
    u32 page_stride;
    u32 table_stride;
    u32 workspace_stride;  // a multiple of BLOCK
    u32 q_stride;
    u32 k_stride;
    u32 v_stride;
};

/// Where the positions of a run lie.
template <typename Page>
__device__ inline PageBlock page_block(const Params& p, const Run& run, u32 kv_head) {
    u32 tile = run.position / Page::TILE, first = run.position % BLOCK;
    u64 page = p.tables[static_cast<u64>(run.sequence) * p.table_stride + tile / Page::TILES];
    u8* at = p.pages + page * p.page_stride + Page::tile_at(kv_head, tile % Page::TILES);
    return {at, run.position % Page::TILE / BLOCK, static_cast<i32>(first), static_cast<i32>(first + run.count)};
}

template <typename Group, int Q_HEADS, int KV_HEADS, Fit K_FIT, Fit V_FIT, int PAGE>
__device__ inline void run(const Params& p) {
    using Page = PageTile<Group::HEAD, PAGE>;
    constexpr int ROW = KV_HEADS * Group::PITCH;
    Run run = p.runs[blockIdx.x];
    int first = static_cast<int>(run.position % BLOCK), slot = static_cast<int>(threadIdx.x) / Group::LANES;
    int head = static_cast<int>(blockIdx.y), n = slot - first;
    bool active = Group::active() && n >= 0 && n < static_cast<int>(run.count);
    i64 token = run.token + (active ? n : 0), position = run.position + (active ? n : 0);
    wait_for_earlier_launches();
    let_later_launches_begin();
    float x[2 * Group::PAIRS], codes[2 * Group::PAIRS];
    if (head < Q_HEADS) {
        load_head<Group>(p.q + token * p.q_stride + head * Group::HEAD, active, x);
        turn<Group>(p.table + token * Group::HEAD, active, x);
        scale_and_shift<Group>(p.q_scale, p.q_shift, head, active, x);
        i64 unit = token * Q_HEADS + head;
        quantize_query<Group>(x, active, p.q_codes + unit * Group::PITCH, p.q_scales + unit);
        return;
    }
    head -= Q_HEADS;
    if (head < KV_HEADS) {
        load_head<Group>(p.k + token * p.k_stride + head * Group::HEAD, active, x);
        turn<Group>(p.table + token * Group::HEAD, active, x);
        scale_and_shift<Group>(p.k_scale, p.k_shift, head, active, x);
        PageBlock block = page_block<Page>(p, run, static_cast<u32>(head));
        float scale = quantize_head<K_FIT, Group>(x, codes);
        store_keys<Page, Group>(codes, block);
        u8* scales = block.tile + Page::KEY_SCALES_AT;
        if (active && Group::lane() == 0) store_scale(reinterpret_cast<e4m3*>(scales) + position % Page::TILE, scale);
        if (p.k_workspace != nullptr) {
            store_elements<Group>(x, active, p.k_workspace + (run.key + position) * ROW + head * Group::PITCH);
        }
        return;
    }
    head -= KV_HEADS;
    load_head<Group>(p.v + token * p.v_stride + head * Group::HEAD, active, x);
    PageBlock block = page_block<Page>(p, run, static_cast<u32>(head));
    float scale = quantize_head<V_FIT, Group>(x, codes);
    store_values<Page, Group>(codes, block);
    f16* scales = reinterpret_cast<f16*>(block.tile + Page::VALUE_SCALES_AT);
    if (active && Group::lane() == 0) scales[position % Page::TILE] = to_f16(scale);
    if (p.v_workspace != nullptr) {
        e4m3* channels = p.v_workspace + static_cast<i64>(head) * Group::HEAD * p.workspace_stride;
        store_transposed<Group, BLOCK>(x, channels + run.key + (run.position - first), p.workspace_stride, first);
    }
}

}  // namespace fireq::qkv
