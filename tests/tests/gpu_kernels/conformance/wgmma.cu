// Products of one warpgroup: out[64][N] = A[64][K] · B[N][K]ᵀ, both operands one swizzled row of WIDTH bytes deep. The lines
// before this text define N, WIDTH, SWIZZLE (bits 62 and 63 of a descriptor), NAME, IN_REGISTERS, and MULTIPLY(d, a, b, old).
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;

struct alignas(64) Map {
    u8 bytes[128];
};

struct Params {
    Map a, b;
    const u32* rows;
    float* out;
};

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void load(void* to, const Map* map, u64* bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %3}], [%2];" ::"r"(
            shared(to)), "l"(map), "r"(shared(bar)), "r"(0) : "memory");
}

// Groups of eight rows follow each other.
__device__ __forceinline__ u64 descriptor(const void* p, int k) {
    return (u64)((shared(p) + k & 0x3ffff) >> 4) | 1ull << 16 | (u64)(8 * WIDTH / 16) << 32 | (u64)SWIZZLE << 62;
}

extern "C" __global__ void __launch_bounds__(128) NAME(const __grid_constant__ Params p) {
    extern __shared__ __align__(1024) u8 memory[];
    __shared__ u64 bar;
    u8 *a = memory, *b = memory + 64 * WIDTH;
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(shared(&bar))
                     : "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared(&bar)),
                     "r"((64 + N) * WIDTH) : "memory");
        load(a, &p.a, &bar);
        load(b, &p.b, &bar);
    }
    __syncthreads();
    u32 done = 0;
    while (!done)
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done) : "r"(shared(&bar)) : "memory");
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = -1.0f;
#if IN_REGISTERS
    // Four neighbouring bytes in each: rows 0 and 8 of the thread, then the same 16 bytes further.
    u32 registers[WIDTH / 32][4];
#pragma unroll
    for (int k = 0; k < WIDTH / 32; k++)
#pragma unroll
        for (int r = 0; r < 4; r++)
            registers[k][r] = p.rows[(row + r % 2 * 8) * (WIDTH / 4) + 8 * k + r / 2 * 4 + quad];
#endif
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < WIDTH / 32; k++) {
#if IN_REGISTERS
        MULTIPLY(d, registers[k], descriptor(b, 32 * k), k > 0);
#else
        MULTIPLY(d, descriptor(a, 32 * k), descriptor(b, 32 * k), k > 0);
#endif
    }
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
        p.out[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + quad * 2 + i % 2] = d[i];
    }
}
