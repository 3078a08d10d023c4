#pragma once
#include "ptx/types.cuh"
#include "ptx/math.cuh"
#include "ptx/convert.cuh"
#include "ptx/warp.cuh"
#include "tile/group.cuh"
#include "tile/page.cuh"

// Codes of sixteen positions into a page. They meet in shared memory, where a lane of the page's order finds its 16 bytes
// together; bytes that hold codes of other positions too are read before they are written.

namespace fireq {

/// Which positions of a tile a CTA has: those from `first` to `end` of the sixteen that begin at 16·`quarter`.
struct PageBlock {
    u8* tile;
    u32 quarter;
    i32 first, end;

    __device__ bool holds(i32 n) const { return n >= first && n < end; }
};

/// Writes the bits of the masks.
__device__ inline void merge_words(u8* to, u32 (&words)[4], const u32 (&masks)[4]) {
    if ((masks[0] | masks[1] | masks[2] | masks[3]) == 0) return;
    if ((masks[0] & masks[1] & masks[2] & masks[3]) != ~0u) {
        uint4 old = *reinterpret_cast<const uint4*>(to);
        u32 before[4] = {old.x, old.y, old.z, old.w};
#pragma unroll
        for (int n = 0; n < 4; ++n) words[n] = (words[n] & masks[n]) | (before[n] & ~masks[n]);
    }
    *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
}

/// Eight codes that lie as bytes, four of them at each place; those that are not there are zero.
__device__ inline u32 staged_word(const u8* first, const u8* second) {
    u32 a = first == nullptr ? 0 : *reinterpret_cast<const u32*>(first);
    u32 b = second == nullptr ? 0 : *reinterpret_cast<const u32*>(second);
    return page_word(a, b);
}

/// Codes of keys, each with its channels: 16 bytes of a page are of two positions.
template <typename Page, typename Group>
__device__ inline void store_keys(const float (&codes)[2 * Group::PAIRS], const PageBlock& block) {
    __shared__ alignas(16) u8 staged[16][Group::HEAD];
    u32 slot = threadIdx.x / Group::LANES;
    if (Group::active()) {
#pragma unroll
        for (int n = 0; n < 2 * Group::PAIRS; ++n) staged[slot][Group::channel(n)] = static_cast<u8>(to_int(codes[n]));
    }
    synchronize();
    for (u32 n = threadIdx.x; n < Page::BLOCKS * 32; n += 16 * Group::LANES) {
        u32 warp = n % 32 / 8, lane = block.quarter * 8 + n % 8;
        u32 words[4], masks[4];
#pragma unroll
        for (u32 word = 0; word < 4; ++word) {
            u32 position = key_position(warp, n % 8 / 4) + word % 2;
            u32 channel = n / 32 * 64 + word / 2 * 32 + n % 4 * 4;
            auto at = [&](u32 channel) { return channel < Group::HEAD ? &staged[position][channel] : nullptr; };
            words[word] = staged_word(at(channel), at(channel + 16));
            masks[word] = block.holds(static_cast<i32>(position)) ? ~0u : 0u;
        }
        merge_words(block.tile + n / 32 * Page::BLOCK_BYTES + warp * 512 + lane * 16, words, masks);
    }
}

/// Codes of values, each with its positions: 16 bytes of a page are all sixteen positions of two channels.
template <typename Page, typename Group>
__device__ inline void store_values(const float (&codes)[2 * Group::PAIRS], const PageBlock& block) {
    __shared__ alignas(16) u8 staged[Group::HEAD][16];
    u32 slot = threadIdx.x / Group::LANES;
    if (Group::active()) {
#pragma unroll
        for (int n = 0; n < 2 * Group::PAIRS; ++n) staged[Group::channel(n)][slot] = static_cast<u8>(to_int(codes[n]));
    }
    synchronize();
    for (u32 n = threadIdx.x; n < Page::BLOCKS * 32; n += 16 * Group::LANES) {
        u32 warp = n % 32 / 8, lane = n % 8 * 4 + block.quarter;
        u32 words[4], masks[4];
#pragma unroll
        for (u32 word = 0; word < 4; ++word) {
            u32 channel = n / 32 * 64 + warp * 16 + n % 8 + word % 2 * 8;
            const u8* sixteen = channel < Group::HEAD ? staged[channel] : nullptr;
            i32 first = static_cast<i32>(word / 2 * 8);
            words[word] = staged_word(sixteen == nullptr ? nullptr : sixteen + first,
                                      sixteen == nullptr ? nullptr : sixteen + first + 4);
            masks[word] = page_mask(block.first - first, block.end - first);
        }
        merge_words(block.tile + Page::VALUES_AT + n / 32 * Page::BLOCK_BYTES + warp * 512 + lane * 16, words, masks);
    }
}

}  // namespace fireq
