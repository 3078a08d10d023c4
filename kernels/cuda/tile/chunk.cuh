#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"

// Chunks: neighbouring numbers of a row that one thread holds in registers, as f32.

namespace fireq {

/// `N` numbers of format `T` from an address aligned to 16 bytes, or to all of them where they take fewer.
template <bool OF_CONSTANT = false, typename T, int N>
__device__ inline void load_chunk(const T* from, float (&to)[N]) {
    constexpr int BYTES = N * static_cast<int>(sizeof(T));
    if constexpr (BYTES % 4 != 0) {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = widen(from[n]);
    } else {
        u32 words[BYTES / 4];
        load_words<OF_CONSTANT>(from, words);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            if constexpr (sizeof(T) == 4) {
                to[n] = float_of_bits(words[n]);
            } else if constexpr (sizeof(T) == 1) {
                to[n] = widen(f16{static_cast<u16>(e4m3_halves(words[n / 4] >> (16 * (n / 2 % 2))) >> (16 * (n % 2)))});
            } else {
                to[n] = widen(T{static_cast<u16>(words[n / 2] >> (16 * (n % 2)))});
            }
        }
    }
}

/// `N` numbers as f32 to an address aligned as for [`load_chunk`].
template <int N>
__device__ inline void store_chunk(float* to, const float (&from)[N]) {
    if constexpr (N == 3) {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = from[n];
    } else {
        u32 words[N];
#pragma unroll
        for (int n = 0; n < N; ++n) words[n] = bits_of_float(from[n]);
        store_words(to, words);
    }
}

/// `N` numbers rounded to bf16, one or an even number of them, to an address aligned likewise.
template <int N>
__device__ inline void store_chunk(bf16* to, const float (&from)[N]) {
    if constexpr (N == 1) {
        *to = to_bf16(from[0]);
    } else {
        static_assert(N % 2 == 0, "words hold two");
        u32 words[N / 2];
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            words[n / 2] = to_bf16(from[n]).bits | static_cast<u32>(to_bf16(from[n + 1]).bits) << 16;
        }
        store_words(to, words);
    }
}

}  // namespace fireq
