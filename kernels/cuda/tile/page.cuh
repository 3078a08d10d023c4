#pragma once
#include "ptx/types.cuh"

// Pages of the INT4 cache: KEYS positions of a sequence for every kv head, in tiles of 64. `kernels/src/pages.rs` has the
// picture.

namespace fireq {

template <int HEAD_, int KEYS_>
struct PageTile {
    static constexpr int HEAD = HEAD_;
    /// From one head of E4M3 codes to the next, where pages go to or queries come from.
    static constexpr int PITCH = pitch(HEAD);
    static constexpr int KEYS = KEYS_;
    static constexpr int TILE = 64;
    static constexpr int TILES = KEYS / TILE;
    /// Blocks of 64 channels: 64 × 64 codes in the order of fragments, 16 bytes for each lane of a warpgroup.
    static constexpr int BLOCKS = (HEAD + 63) / 64;
    static constexpr int BLOCK_BYTES = 64 * TILE / 2;
    static constexpr int CODES = BLOCKS * BLOCK_BYTES;
    static constexpr int KEY_SCALES_AT = CODES;
    static constexpr int VALUES_AT = KEY_SCALES_AT + TILE;
    static constexpr int VALUE_SCALES_AT = VALUES_AT + CODES;
    /// Scales of values are halves, for each of which a lane would have to convert its own.
    static constexpr int BYTES = VALUE_SCALES_AT + 2 * TILE;

    static_assert(KEYS > 0 && KEYS % TILE == 0, "pages are whole tiles");
    static_assert(HEAD % 4 == 0 && HEAD <= 256, "a word has codes of four neighbouring channels");

    /// Where a tile of a page begins, counted from the page.
    static __device__ u32 tile_at(u32 kv_head, u32 tile) { return (kv_head * TILES + tile) * BYTES; }
};

/// The position of a tile whose key a lane has in its first row; its second row has the next.
__device__ constexpr u32 key_position(u32 warp, u32 g) { return g / 2 * 16 + warp * 4 + g % 2 * 2; }

/// Eight codes, in the low halves of the bytes of two words, as a word of a page has them: its nibbles from the lowest on are
/// codes 0, 2, 4, 6, 1, 3, 5 and 7, so that those of neighbours lie sixteen bits apart.
__device__ inline u32 page_word(u32 first, u32 second) {
    u32 a = (first & 0xf) | (first >> 12 & 0xf0) | (first << 8 & 0xf0000) | (first >> 4 & 0xf00000);
    u32 b = (second & 0xf) | (second >> 12 & 0xf0) | (second << 8 & 0xf0000) | (second >> 4 & 0xf00000);
    return a | b << 8;
}

/// The bits of a page's word that hold codes `first` to `end` of its eight.
__device__ inline u32 page_mask(i32 first, i32 end) {
    u32 mask = 0;
#pragma unroll
    for (int n = 0; n < 8; ++n) mask |= n >= first && n < end ? 0xfu << (4 * (n / 2 + n % 2 * 4)) : 0;
    return mask;
}

}  // namespace fireq
