#pragma once

// Matrix products of a warpgroup on the tensor cores (wgmma): D[64, N] += A[64, 32] · B[N, 32]ᵀ of E4M3 numbers. A lies in
// registers, B in shared memory, D in registers: lane 4·g + t of warp w holds, of rows 16·w + g and 16·w + g + 8, elements
// 4·t … 4·t + 3 and 16 + 4·t … 16 + 4·t + 3 of A, and columns 8·j + 2·t and 8·j + 2·t + 1 of D.

namespace fireq {

inline constexpr int WARPGROUP = 128;

/// Where a matrix lies in shared memory, and how far apart two lie, as descriptors have it: in units of 16 bytes.
__device__ inline u32 matrix_place(const void* p) { return (shared_address(p) & 0x3ffffu) >> 4; }
__device__ constexpr u32 matrix_bytes(u32 bytes) { return bytes >> 4; }

/// What B is: rows of 128 bytes, or of 64, eight of which make a block in which 16-byte chunks are swizzled over the span of
/// a row. The place may be 32, 64 or 96 bytes inside of the first row. A matrix so many `matrix_bytes` behind has that much
/// added to its descriptor.
template <int BYTES = 128>
__device__ inline u64 swizzled_rows(u32 place) {
    static_assert(BYTES == 128 || BYTES == 64, "rows are one span of a swizzle");
    constexpr u32 SWIZZLE = (BYTES == 128 ? 1u : 2u) << 30;
    constexpr u32 EIGHT_ROWS = matrix_bytes(8 * BYTES);
    constexpr u32 UNUSED_STRIDE = 1u << 16;
    return static_cast<u64>(SWIZZLE | EIGHT_ROWS) << 32 | (UNUSED_STRIDE + place);
}

/// What B is: blocks of eight rows of 16 bytes, 128 bytes each, without a swizzle. Those of the next 16 bytes of the rows lie
/// `COLUMNS_APART`, those of the next eight rows behind each other. The place may be moved by adding to the word.
template <int COLUMNS_APART>
__device__ inline u32 core_matrices(u32 place) {
    return matrix_bytes(COLUMNS_APART) << 16 | place;
}

__device__ inline u64 core_matrices_at(u32 word) { return static_cast<u64>(matrix_bytes(128)) << 32 | word; }

/// Registers of each thread of this warpgroup from now on: fewer leave some for others, more wait until they are there.
template <int COUNT>
__device__ inline void give_registers_up_to() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ inline void take_registers_up_to() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/// Registers written before are read by products after this.
__device__ inline void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/// Products asked for before make a group.
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Waits until at most `PENDING` groups are not done.
template <int PENDING>
__device__ inline void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/// Keeps the compiler from moving accumulators that products still write.
template <int COUNT>
__device__ inline void keep_in_place(float (&d)[COUNT]) {
#pragma unroll
    for (int n = 0; n < COUNT; ++n) asm volatile("" : "+f"(d[n])::"memory");
}

#define FIREQ_D0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FIREQ_D1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define FIREQ_D2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define FIREQ_D3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define FIREQ_D4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define FIREQ_D5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define FIREQ_D6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define FIREQ_D7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define FIREQ_D8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define FIREQ_D9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define FIREQ_D10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define FIREQ_D11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define FIREQ_D12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define FIREQ_D13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define FIREQ_D14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define FIREQ_D15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define FIREQ_TO_31 FIREQ_D0 ", " FIREQ_D1 ", " FIREQ_D2 ", " FIREQ_D3
#define FIREQ_TO_63 FIREQ_TO_31 ", " FIREQ_D4 ", " FIREQ_D5 ", " FIREQ_D6 ", " FIREQ_D7
#define FIREQ_TO_95 FIREQ_TO_63 ", " FIREQ_D8 ", " FIREQ_D9 ", " FIREQ_D10 ", " FIREQ_D11
#define FIREQ_TO_127 FIREQ_TO_95 ", " FIREQ_D12 ", " FIREQ_D13 ", " FIREQ_D14 ", " FIREQ_D15
#define FIREQ_4(n) "+f"(d[n]), "+f"(d[n + 1]), "+f"(d[n + 2]), "+f"(d[n + 3])
#define FIREQ_8(n) FIREQ_4(n), FIREQ_4(n + 4)
#define FIREQ_32(n) FIREQ_8(n), FIREQ_8(n + 8), FIREQ_8(n + 16), FIREQ_8(n + 24)
#define FIREQ_PRODUCT(shape, registers, a0, a1, a2, a3, b, add, ...)                                  \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #add ", 0;\n"                               \
                 "wgmma.mma_async.sync.aligned." shape ".f32.e4m3.e4m3 {" registers "}, "              \
                 "{%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b ", add, 1, 1;\n}"                    \
                 : __VA_ARGS__                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(rows), "r"(static_cast<int>(keep)))

/// D = A·Bᵀ, plus D where `keep` is set.
template <int N>
__device__ inline void multiply(float (&d)[N / 2], const u32 (&a)[4], u64 rows, bool keep) {
    static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128 || N == 256, "tiles are powers of two of tokens");
    if constexpr (N == 8) {
        FIREQ_PRODUCT("m64n8k32", "%0, %1, %2, %3", 4, 5, 6, 7, 8, 9, FIREQ_4(0));
    } else if constexpr (N == 16) {
        FIREQ_PRODUCT("m64n16k32", FIREQ_D0, 8, 9, 10, 11, 12, 13, FIREQ_8(0));
    } else if constexpr (N == 32) {
        FIREQ_PRODUCT("m64n32k32", FIREQ_D0 ", " FIREQ_D1, 16, 17, 18, 19, 20, 21, FIREQ_8(0), FIREQ_8(8));
    } else if constexpr (N == 64) {
        FIREQ_PRODUCT("m64n64k32", FIREQ_TO_31, 32, 33, 34, 35, 36, 37, FIREQ_32(0));
    } else if constexpr (N == 128) {
        FIREQ_PRODUCT("m64n128k32", FIREQ_TO_63, 64, 65, 66, 67, 68, 69, FIREQ_32(0), FIREQ_32(32));
    } else if constexpr (N == 256) {
        FIREQ_PRODUCT("m64n256k32", FIREQ_TO_127, 128, 129, 130, 131, 132, 133, FIREQ_32(0), FIREQ_32(32), FIREQ_32(64),
                      FIREQ_32(96));
    }
}

#undef FIREQ_PRODUCT
#undef FIREQ_4
#undef FIREQ_8
#undef FIREQ_32
#undef FIREQ_TO_31
#undef FIREQ_TO_63
#undef FIREQ_TO_95
#undef FIREQ_TO_127
#undef FIREQ_D0
#undef FIREQ_D1
#undef FIREQ_D2
#undef FIREQ_D3
#undef FIREQ_D4
#undef FIREQ_D5
#undef FIREQ_D6
#undef FIREQ_D7
#undef FIREQ_D8
#undef FIREQ_D9
#undef FIREQ_D10
#undef FIREQ_D11
#undef FIREQ_D12
#undef FIREQ_D13
#undef FIREQ_D14
#undef FIREQ_D15

}  // namespace fireq
