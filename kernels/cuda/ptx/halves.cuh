#pragma once

// Two halves (f16) in a word.

namespace fireq {

/// Two halves times two: exact here, since a scale has 4 bits and a factor at most 4.
__device__ inline u32 multiply_halves(u32 a, u32 b) {
    u32 product;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

__device__ inline u32 add_halves(u32 a, u32 b) {
    u32 sum;
    asm("add.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
}

__device__ inline u32 multiply_add_halves(u32 a, u32 b, u32 c) {
    u32 sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

/// The numbers of two E4M3 codes in the low half of a word; E4M3 numbers are halves, too.
__device__ inline u32 halves_of(u32 codes) {
    u32 halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<u16>(codes)));
    return halves;
}

/// One of two halves, twice.
template <int WHICH>
__device__ inline u32 twice(u32 halves) {
    u32 same;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(same) : "r"(halves), "n"(WHICH == 0 ? 0x1010 : 0x3232));
    return same;
}

/// Four E4M3 codes of four halves.
__device__ inline u32 round_halves(u32 low, u32 high) {
    u32 codes;
    asm("{\n.reg .b16 l, h;\n"
        "cvt.rn.satfinite.e4m3x2.f16x2 l, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f16x2 h, %2;\n"
        "mov.b32 %0, {l, h};\n}"
        : "=r"(codes)
        : "r"(low), "r"(high));
    return codes;
}

/// `(x & mask) ^ bits`, which compilers make two instructions of where both are constants.
__device__ inline u32 and_xor(u32 x, u32 mask, u32 bits) {
    u32 y;
    asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(y) : "r"(x), "r"(mask), "r"(bits));
    return y;
}

}  // namespace fireq
