#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
#include "ptx/warp.cuh"
#include "tile/page.cuh"
#include "tile/prefill.cuh"
#include "quant/page.cuh"

// Keys and values of earlier positions from INT4 pages into the FP8 workspace of prefill, as `qkv` writes those of a step:
// one CTA for 64 positions of a kv head. Positions from `keys` on stay as they are.

namespace fireq::gather_pages {

struct Params {
    const u8* pages;       // page n begins n·page_stride bytes on
    const u32* table;      // pages of the sequence, in order
    e4m3* k_workspace;     // [context, kv_heads·PITCH]
    e4m3* v_workspace;     // [kv_heads·HEAD, workspace_stride], blocks of sixteen in the order of `value_position`
    u32 page_stride;
    u32 workspace_stride;  // a multiple of 16
    u32 keys;
};

/// Bytes of a row of 64 numbers in shared memory: odd in words, so that no column is one bank.
inline constexpr u32 PITCH = 64 + 4;

using Rows = u8[64][PITCH];

/// Puts a lane's parts of two rows where rows are whole: fours of columns go to `columns`.
__device__ inline void stage(Rows& rows, u32 first, u32 second, const u32 (&columns)[2][2], const Fragments& a) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            u8* row = rows[n % 2 == 0 ? first : second];
            *reinterpret_cast<u32*>(row + columns[part][n / 2]) = a[part][n];
        }
    }
}

template <typename Page>
__device__ inline void keys_of(const Params& p, const u8* tile, Rows& rows, u32 block) {
    u32 thread = threadIdx.x, t = thread % 4, position = key_position(thread / WARP, thread % WARP / 4);
    Fragments a;
    decode_keys<Page>(tile, block, thread * 16, key_scales<Page>(tile, position), a);
    stage(rows, position, position + 1, {{4 * t, 16 + 4 * t}, {32 + 4 * t, 48 + 4 * t}}, a);
    synchronize();
    constexpr u32 CHUNK = Page::HEAD % 16 == 0 ? 16 : 4, CHUNKS = 64 / CHUNK;
    u64 pitch = static_cast<u64>(gridDim.y) * Page::PITCH;
    for (u32 n = thread; n < 64 * CHUNKS; n += blockDim.x) {
        u32 key = blockIdx.x * Page::TILE + n / CHUNKS, column = n % CHUNKS * CHUNK, channel = block * 64 + column;
        if (key >= p.keys || channel >= Page::HEAD) continue;
        u32 words[CHUNK / 4];
#pragma unroll
        for (u32 i = 0; i < CHUNK / 4; ++i) words[i] = *reinterpret_cast<const u32*>(&rows[n / CHUNKS][column + 4 * i]);
        store_words(p.k_workspace + key * pitch + blockIdx.y * Page::PITCH + channel, words);
    }
}

template <typename Page>
__device__ inline void values_of(const Params& p, const u8* tile, Rows& rows, u32 block) {
    u32 thread = threadIdx.x, t = thread % 4, channel = thread / WARP * 16 + thread % WARP / 4;
    Fragments a;
    decode_values<Page>(tile, block, thread * 16, value_scales<Page>(tile, 16 * t, Page::TILE), a);
    stage(rows, channel, channel + 8, {{16 * t, 16 * t + 4}, {16 * t + 8, 16 * t + 12}}, a);
    synchronize();
    for (u32 n = thread; n < 64 * 4; n += blockDim.x) {
        u32 first = blockIdx.x * Page::TILE + n % 4 * 16, row = block * 64 + n / 4;
        if (first >= p.keys || row >= Page::HEAD) continue;
        const u8* sixteen = &rows[n / 4][n % 4 * 16];
        e4m3* to = p.v_workspace + static_cast<u64>(blockIdx.y * Page::HEAD + row) * p.workspace_stride + first;
        if (first + 16 <= p.keys) {
            u32 words[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                // Places 4·i … 4·i + 3 are keys 2·i, 2·i + 1, 2·i + 8 and 2·i + 9.
                u32 low = reinterpret_cast<const u16*>(sixteen)[i], high = reinterpret_cast<const u16*>(sixteen)[i + 4];
                words[i] = low | high << 16;
            }
            store_words(to, words);
        } else {
            for (u32 i = 0; first + i < p.keys; ++i) to[value_position(static_cast<int>(i))].bits = sixteen[i];
        }
    }
}

template <typename Page>
__device__ inline void run(const Params& p) {
    __shared__ alignas(16) Rows rows;
    u32 tile = blockIdx.x, block = blockIdx.z / 2;
    u64 page = p.table[tile / Page::TILES];
    const u8* from = p.pages + page * p.page_stride + Page::tile_at(blockIdx.y, tile % Page::TILES);
    wait_for_earlier_launches();
    let_later_launches_begin();
    if (blockIdx.z % 2 == 0) {
        keys_of<Page>(p, from, rows, block);
    } else {
        values_of<Page>(p, from, rows, block);
    }
}

}  // namespace fireq::gather_pages
