#pragma once

// What lanes of a warp and warps of a CTA do together.

namespace fireq {

inline constexpr int WARP = 32;
inline constexpr u32 ALL_LANES = 0xffffffffu;

/// The value of the lane whose number differs in the bits of `mask`. Every lane of the warp takes part.
__device__ inline u32 exchange(u32 x, int mask) {
    u32 y;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(y) : "r"(x), "r"(mask));
    return y;
}

/// `x` itself, of which the compiler knows nothing then: it is kept through a loop, not computed anew in every round. Every
/// lane of the warp takes part.
__device__ inline u32 opaque(u32 x) { return exchange(x, 0); }

/// At least one, which the compiler does not know, and the same in all threads, which it does.
__device__ inline u32 ctas_in_y() {
    u32 ctas;
    asm("mov.u32 %0, %%nctaid.y;" : "=r"(ctas));
    return ctas;
}

__device__ inline float exchange(float x, int mask) { return float_of_bits(exchange(bits_of_float(x), mask)); }

__device__ inline u64 exchange(u64 x, int mask) {
    u64 low = exchange(static_cast<u32>(x), mask);
    u64 high = exchange(static_cast<u32>(x >> 32), mask);
    return high << 32 | low;
}

__device__ inline double exchange(double x, int mask) {
    return __longlong_as_double(static_cast<i64>(exchange(static_cast<u64>(__double_as_longlong(x)), mask)));
}

/// The value of a lane. Every lane of the warp takes part.
__device__ inline float of_lane(float x, u32 lane) {
    u32 y;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(y) : "r"(bits_of_float(x)), "r"(lane));
    return float_of_bits(y);
}

__device__ inline u32 of_lane(u32 x, u32 lane) { return bits_of_float(of_lane(float_of_bits(x), lane)); }

__device__ inline u64 of_lane(u64 x, u32 lane) {
    u32 low, high;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(low) : "r"(static_cast<u32>(x)), "r"(lane));
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(high) : "r"(static_cast<u32>(x >> 32)), "r"(lane));
    return static_cast<u64>(high) << 32 | low;
}

/// Whether any lane of the warp says so. Every lane takes part.
__device__ inline bool any_lane(bool yes) {
    u32 any;
    asm volatile(
        "{\n"
        ".reg .pred own, any;\n"
        "setp.ne.u32 own, %1, 0;\n"
        "vote.sync.any.pred any, own, 0xffffffff;\n"
        "selp.u32 %0, 1, 0, any;\n"
        "}"
        : "=r"(any)
        : "r"(static_cast<u32>(yes)));
    return any != 0;
}

/// The value of the lane whose number is less by `distance`; its own where there is none. Every lane of the warp takes part.
__device__ inline u64 of_lower_lane(u64 x, u32 distance) {
    u32 low, high;
    asm volatile("shfl.sync.up.b32 %0, %1, %2, 0, 0xffffffff;" : "=r"(low) : "r"(static_cast<u32>(x)), "r"(distance));
    asm volatile("shfl.sync.up.b32 %0, %1, %2, 0, 0xffffffff;" : "=r"(high) : "r"(static_cast<u32>(x >> 32)), "r"(distance));
    return static_cast<u64>(high) << 32 | low;
}

/// All threads of the CTA arrive before any goes on, and see what the others wrote to shared memory.
__device__ inline void synchronize() { asm volatile("bar.sync 0;" ::: "memory"); }

/// As `synchronize`, for the first `COUNT` threads of the CTA only.
template <int COUNT>
__device__ inline void synchronize_first() {
    static_assert(COUNT % WARP == 0, "warps arrive whole");
    asm volatile("bar.sync 1, %0;" ::"n"(COUNT) : "memory");
}

/// As `synchronize`, for the four warps that name the same one of fifteen barriers.
__device__ inline void synchronize_four_warps(u32 barrier) { asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory"); }

}  // namespace fireq
