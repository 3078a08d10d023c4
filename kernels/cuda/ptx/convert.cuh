#pragma once

// Conversions between number formats, each one instruction or a shift.

namespace fireq {

__device__ inline float float_of_bits(u32 bits) { return __int_as_float(static_cast<int>(bits)); }

__device__ inline u32 bits_of_float(float x) { return static_cast<u32>(__float_as_int(x)); }

__device__ inline float widen(float x) { return x; }

__device__ inline float widen(bf16 x) { return float_of_bits(static_cast<u32>(x.bits) << 16); }

__device__ inline float widen(f16 x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}

/// The nearest bfloat16, ties to even.
__device__ inline bf16 to_bf16(float x) {
    bf16 narrow;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
}

/// The nearest half, ties to even.
__device__ inline f16 to_f16(float x) {
    f16 narrow;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
}

/// Two E4M3 codes, `low` in the low byte: round to nearest even, saturating at ±448.
__device__ inline u16 to_e4m3_pair(float low, float high) {
    u16 codes;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
    return codes;
}

/// The numbers of the two E4M3 codes in the low 16 bits, which are halves, too: that of the low byte in the low half.
__device__ inline u32 e4m3_halves(u32 codes) {
    u32 halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<u16>(codes)));
    return halves;
}

/// The number of one E4M3 code.
__device__ inline float widen(e4m3 x) { return widen(f16{static_cast<u16>(e4m3_halves(x.bits))}); }

/// The nearest integer, ties to even.
__device__ inline float round_even(float x) {
    float rounded;
    asm("cvt.rni.f32.f32 %0, %1;" : "=f"(rounded) : "f"(x));
    return rounded;
}

/// The least whole number that is not below.
__device__ inline float round_up(float x) {
    float rounded;
    asm("cvt.rpi.f32.f32 %0, %1;" : "=f"(rounded) : "f"(x));
    return rounded;
}

__device__ inline i32 to_int(float x) {
    i32 n;
    asm("cvt.rzi.s32.f32 %0, %1;" : "=r"(n) : "f"(x));
    return n;
}

}  // namespace fireq
