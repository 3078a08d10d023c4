#pragma once

// Products of a warpgroup whose operands both lie in shared memory: D[64, N] = A[64, 32]·B[N, 32]ᵀ of E4M3 numbers, plus D
// where `keep` is set. D lies in registers as in `wgmma.cuh`.

namespace fireq {

#define FIREQ_SUMS_4(n) "+f"(d[n]), "+f"(d[n + 1]), "+f"(d[n + 2]), "+f"(d[n + 3])
#define FIREQ_SUMS_16(n) FIREQ_SUMS_4(n), FIREQ_SUMS_4(n + 4), FIREQ_SUMS_4(n + 8), FIREQ_SUMS_4(n + 12)
#define FIREQ_SUMS_64(n) FIREQ_SUMS_16(n), FIREQ_SUMS_16(n + 16), FIREQ_SUMS_16(n + 32), FIREQ_SUMS_16(n + 48)
#define FIREQ_TO_63                                                                    \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FIREQ_TO_95                                                                    \
    FIREQ_TO_63 ", "                                                                   \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define FIREQ_TO_127                                                                                 \
    FIREQ_TO_95 ", "                                                                                 \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define FIREQ_PRODUCT(shape, registers, a_at, b_at, add, ...)                             \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #add ", 0;\n"                   \
                 "wgmma.mma_async.sync.aligned." shape ".f32.e4m3.e4m3 {" registers "}, " \
                 "%" #a_at ", %" #b_at ", add, 1, 1;\n}"                                  \
                 : __VA_ARGS__                                                            \
                 : "l"(a), "l"(b), "r"(static_cast<int>(keep)))

__device__ inline void multiply_shared(float (&d)[64], u64 a, u64 b, bool keep) {
    FIREQ_PRODUCT("m64n128k32", FIREQ_TO_63, 64, 65, 66, FIREQ_SUMS_64(0));
}

__device__ inline void multiply_shared(float (&d)[96], u64 a, u64 b, bool keep) {
    FIREQ_PRODUCT("m64n192k32", FIREQ_TO_95, 96, 97, 98, FIREQ_SUMS_64(0), FIREQ_SUMS_16(64), FIREQ_SUMS_16(80));
}

__device__ inline void multiply_shared(float (&d)[128], u64 a, u64 b, bool keep) {
    FIREQ_PRODUCT("m64n256k32", FIREQ_TO_127, 128, 129, 130, FIREQ_SUMS_64(0), FIREQ_SUMS_64(64));
}

#undef FIREQ_PRODUCT
#undef FIREQ_SUMS_4
#undef FIREQ_SUMS_16
#undef FIREQ_SUMS_64
#undef FIREQ_TO_63
#undef FIREQ_TO_95
#undef FIREQ_TO_127

}  // namespace fireq
