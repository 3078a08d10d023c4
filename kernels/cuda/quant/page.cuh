#pragma once
#include "ptx/types.cuh"
#include "ptx/halves.cuh"
#include "tile/page.cuh"

// INT4 codes of pages to E4M3 numbers, in the registers of a product's operand A: code q under scale σ is rn8(q·σ). The
// product is exact in halves, so that one conversion rounds as the contract does. That takes nine integer instructions for
// eight codes, and each of them may have a scale of its own; a table of the scale would take eleven, and eleven to be made.

namespace fireq {

/// Eight codes. `scales` are those of codes 0 and 1, 2 and 3, 4 and 5, 6 and 7 as halves; `offsets` are −72 times the second
/// and the fourth. A nibble behind the exponent of 1024 or, four bits higher, of 64 is the number 1032 + q or 72 + q.
__device__ inline void decode_eight(u32 codes, const u32 (&scales)[4], const u32 (&offsets)[2], u32& first, u32& second) {
    constexpr u32 LOW = 0x000f000f, FROM_1032 = 0x64086408, MINUS_1032 = 0xe408e408;
    constexpr u32 HIGH = 0x00f000f0, FROM_72 = 0x54805480;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
        u32 nibbles = codes >> (8 * n);
        u32 even = multiply_halves(add_halves(and_xor(nibbles, LOW, FROM_1032), MINUS_1032), scales[2 * n]);
        u32 odd = multiply_add_halves(and_xor(nibbles, HIGH, FROM_72), scales[2 * n + 1], offsets[n]);
        (n == 0 ? first : second) = round_halves(even, odd);
    }
}

/// −72 times two halves.
__device__ inline u32 offset_of(u32 scales) { return multiply_halves(scales, 0xd480d480); }

/// A lane's part of a block of 64 × 64 codes: its two rows, of which each product takes 32 columns.
using Fragments = u32[2][4];

/// Scales of a lane's two keys.
struct KeyScales {
    u32 scales[2][4], offsets[2][2];
};

/// `position` is that of the first.
template <typename Page>
__device__ inline KeyScales key_scales(const u8* tile, u32 position) {
    u32 both = halves_of(*reinterpret_cast<const u16*>(tile + Page::KEY_SCALES_AT + position));
    KeyScales keys;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        u32 scale = row == 0 ? twice<0>(both) : twice<1>(both);
#pragma unroll
        for (int n = 0; n < 4; ++n) keys.scales[row][n] = scale;
        keys.offsets[row][0] = keys.offsets[row][1] = offset_of(scale);
    }
    return keys;
}

/// Keys of a tile's n-th block: rows are positions, columns its 64 channels. A lane's codes are `at` bytes on: 16 for each
/// lane of the warpgroup before it.
template <typename Page>
__device__ inline void decode_keys(const u8* tile, u32 n, u32 at, const KeyScales& keys, Fragments& a) {
    uint4 codes = *reinterpret_cast<const uint4*>(tile + n * Page::BLOCK_BYTES + at);
    decode_eight(codes.x, keys.scales[0], keys.offsets[0], a[0][0], a[0][2]);
    decode_eight(codes.y, keys.scales[1], keys.offsets[1], a[0][1], a[0][3]);
    decode_eight(codes.z, keys.scales[0], keys.offsets[0], a[1][0], a[1][2]);
    decode_eight(codes.w, keys.scales[1], keys.offsets[1], a[1][1], a[1][3]);
}

/// Scales of the sixteen positions of which a lane has values: eight for each product.
struct ValueScales {
    u32 scales[2][4], offsets[2][2];
};

/// `first` is the first of these positions. Those from `visible` on have scales of zero, whatever is stored there.
template <typename Page>
__device__ inline ValueScales value_scales(const u8* tile, u32 first, i32 visible) {
    const uint4* from = reinterpret_cast<const uint4*>(tile + Page::VALUE_SCALES_AT + 2 * first);
    uint4 low = from[0], high = from[1];
    u32 scales[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    if (visible < Page::TILE) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
            i32 seen = visible - static_cast<i32>(first) - 2 * n;
            scales[n] = seen <= 0 ? 0u : seen == 1 ? scales[n] & 0xffff : scales[n];
        }
    }
    ValueScales values;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
        values.scales[n / 4][n % 4] = scales[n];
        if (n % 2 == 1) values.offsets[n / 4][n % 4 / 2] = offset_of(scales[n]);
    }
    return values;
}

/// Values of a tile's n-th block: rows are its 64 channels, columns positions.
template <typename Page>
__device__ inline void decode_values(const u8* tile, u32 n, u32 at, const ValueScales& values, Fragments& a) {
    uint4 codes = *reinterpret_cast<const uint4*>(tile + Page::VALUES_AT + n * Page::BLOCK_BYTES + at);
    decode_eight(codes.x, values.scales[0], values.offsets[0], a[0][0], a[0][2]);
    decode_eight(codes.y, values.scales[0], values.offsets[0], a[0][1], a[0][3]);
    decode_eight(codes.z, values.scales[1], values.offsets[1], a[1][0], a[1][2]);
    decode_eight(codes.w, values.scales[1], values.offsets[1], a[1][1], a[1][3]);
}

}  // namespace fireq
