#pragma once

// Memory in words: 16 bytes per thread where addresses allow it.

namespace fireq {

/// What loads may take for granted: that no launch writes the memory, of weights and tables.
inline constexpr bool CONSTANT = true;

#define FIREQ_LOAD(words, ...)                                                 \
    if constexpr (OF_CONSTANT) {                                               \
        asm volatile("ld.global.nc." words : __VA_ARGS__);                     \
    } else {                                                                   \
        asm volatile("ld.global." words : __VA_ARGS__ : "memory");             \
    }

/// `WORDS` words from an address aligned to all of them.
template <bool OF_CONSTANT = false, int WORDS>
__device__ inline void load_words(const void* from, u32 (&to)[WORDS]) {
    static_assert(WORDS == 1 || WORDS == 2 || WORDS % 4 == 0, "loads are 4, 8 or multiples of 16 bytes");
    if constexpr (WORDS == 1) {
        FIREQ_LOAD("u32 %0, [%1];", "=r"(to[0]) : "l"(from))
    } else if constexpr (WORDS == 2) {
        FIREQ_LOAD("v2.u32 {%0, %1}, [%2];", "=r"(to[0]), "=r"(to[1]) : "l"(from))
    } else {
#pragma unroll
        for (int n = 0; n < WORDS; n += 4) {
            FIREQ_LOAD("v4.u32 {%0, %1, %2, %3}, [%4];", "=r"(to[n]), "=r"(to[n + 1]), "=r"(to[n + 2]), "=r"(to[n + 3])
                       : "l"(static_cast<const u8*>(from) + 4 * n))
        }
    }
}

#undef FIREQ_LOAD

/// `WORDS` words to an address aligned to all of them.
template <int WORDS>
__device__ inline void store_words(void* to, const u32 (&from)[WORDS]) {
    static_assert(WORDS == 1 || WORDS == 2 || WORDS % 4 == 0, "stores are 4, 8 or multiples of 16 bytes");
    if constexpr (WORDS == 1) {
        asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(from[0]) : "memory");
    } else if constexpr (WORDS == 2) {
        asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(from[0]), "r"(from[1]) : "memory");
    } else {
#pragma unroll
        for (int n = 0; n < WORDS; n += 4) {
            asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(static_cast<u8*>(to) + 4 * n), "r"(from[n]),
                         "r"(from[n + 1]), "r"(from[n + 2]), "r"(from[n + 3])
                         : "memory");
        }
    }
}

/// Adds to a number in shared memory to which other threads of the CTA may add at the same time.
__device__ inline void add_shared(u64* to, u64 x) {
    asm volatile("red.shared.add.u64 [%0], %1;" ::"r"(static_cast<u32>(__cvta_generic_to_shared(to))), "l"(x) : "memory");
}

/// Bytes at an address in shared memory that is aligned to all of them.
__device__ inline u16 load_shared_u16(u32 address) {
    u16 x;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(address) : "memory");
    return x;
}

__device__ inline uint4 load_shared_u128(u32 address) {
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(address) : "memory");
    return x;
}

}  // namespace fireq
