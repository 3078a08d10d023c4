#pragma once
#include "ptx/types.cuh"
#include "ptx/halves.cuh"
#include "ptx/math.cuh"

// INT4 codes to E4M3 numbers by table: code q under scale σ stands for rn8(q·σ), which is looked up and not computed.

namespace fireq {

/// The numbers of the codes 0 … 7 and −8 … −1, one in each byte.
struct Table {
    u32 positive[2];
    u32 negative[2];
};

/// Bytes of `low` and `high`, chosen by the nibbles of a selector.
__device__ inline u32 bytes(u32 low, u32 high, u32 selector) {
    u32 chosen;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(chosen) : "r"(low), "r"(high), "r"(selector));
    return chosen;
}

/// `(x & mask) | bits`, which compilers make two instructions of where both are constants.
__device__ inline u32 and_or(u32 x, u32 mask, u32 bits) {
    u32 y;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "r"(mask), "r"(bits));
    return y;
}

/// The table of a scale that both halves hold. Eight products suffice: the numbers of −q and q differ in their sign.
__device__ inline Table table_of(u32 scale) {
    constexpr u32 ONE_TWO = 0x40003c00, THREE_FOUR = 0x44004200, FIVE_SIX = 0x46004500, SEVEN_EIGHT = 0x48004700;
    u32 to_4 = round_halves(multiply_halves(scale, ONE_TWO), multiply_halves(scale, THREE_FOUR));
    u32 to_8 = round_halves(multiply_halves(scale, FIVE_SIX), multiply_halves(scale, SEVEN_EIGHT));
    constexpr u32 SIGNS = 0x80808080, REVERSED = 0x0123;
    return {{to_4 << 8, bytes(to_4, to_8, 0x6543)},
            {bytes(to_8, 0, REVERSED) ^ SIGNS, bytes(to_4, 0, REVERSED) ^ SIGNS}};
}

/// Tables of the scales of two rows, E4M3 in one word's low bytes.
__device__ inline void tables_of(u16 scales, Table& first, Table& second) {
    u32 halves = halves_of(scales);
    first = table_of(bytes(halves, 0, 0x1010));
    second = table_of(bytes(halves, 0, 0x3232));
}

/// `x >> N` by the pipe of multiplications, which has little else to do, while that of shifts, permutations and logic bounds the
/// decoding.
template <int N>
__device__ inline u32 right_by(u32 x) {
    return multiply_high(x, 1u << (32 - N));
}

/// Eight codes, the first in the lowest nibble, as E4M3: three byte permutations for four of them.
__device__ inline void decode(const Table& table, u32 codes, u32& first, u32& second) {
    u32 magnitudes = codes & 0x77777777;
    u32 choices = and_or(right_by<1>(codes), 0x44444444, 0x32103210);
    u32 of_four[2][2] = {{magnitudes, choices}, {right_by<16>(magnitudes), right_by<16>(choices)}};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
        u32 positive = bytes(table.positive[0], table.positive[1], of_four[n][0]);
        u32 negative = bytes(table.negative[0], table.negative[1], of_four[n][0]);
        (n == 0 ? first : second) = bytes(positive, negative, of_four[n][1]);
    }
}

}  // namespace fireq
