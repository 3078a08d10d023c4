#pragma once

// Names of the numbers that kernels read and write. NVRTC brings none without CUDA's headers.

namespace fireq {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using i64 = long long;

/// Sixteen bits of a bfloat16.
struct bf16 {
    u16 bits;
};

/// Sixteen bits of an IEEE half.
struct f16 {
    u16 bits;
};

/// Eight bits of a finite E4M3.
struct e4m3 {
    u8 bits;
};

/// From one row of `cols` E4M3 codes to the next, or from one head to the next: descriptors of the copy engine count in 16 bytes.
__device__ constexpr int pitch(int cols) { return (cols + 15) / 16 * 16; }

static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2 && sizeof(e4m3) == 1, "numbers are stored without padding");
static_assert(sizeof(u64) == 8 && sizeof(void*) == 8, "device addresses have 64 bits");

template <typename A, typename B>
inline constexpr bool same = false;
template <typename A>
inline constexpr bool same<A, A> = true;

/// Where a field lies in a structure: what units compare with the host's own layout.
#define FIREQ_OFFSET(type, field) __INTADDR__(&((type*)0)->field)

}  // namespace fireq
