// D = A · Bᵀ of E4M3, 64 × 64 per CTA, K in steps of 128 through two stages of tensor-map TMA with 128-byte swizzle.
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;

struct alignas(64) Map { u8 bytes[128]; };

#define STAGES 2
#define BYTES (64 * 128)

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void wait(u64* bar, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra AGAIN;\n"
        "DONE:\n"
        "}" ::"r"(shared(bar)), "r"(parity) : "memory");
}

__device__ __forceinline__ void load(void* to, const Map* map, u64* bar, int k, int row) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared(to)),
        "l"(map), "r"(shared(bar)), "r"(k), "r"(row) : "memory");
}

__device__ __forceinline__ u64 descriptor(const void* p) {
    return (u64)((shared(p) & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

__device__ __forceinline__ void multiply(float (&d)[32], u64 a, u64 b) {
    asm volatile(
        "{\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1;\n"
        "}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
          "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
          "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
          "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b));
}

extern "C" __global__ void __launch_bounds__(160)
    gemm(const __grid_constant__ Map map_a, const __grid_constant__ Map map_b, float* out, int m, int n, int k) {
    extern __shared__ __align__(1024) u8 memory[];
    __shared__ u64 full[STAGES], empty[STAGES];
    u8 *a = memory, *b = memory + STAGES * BYTES;
    int steps = (k + 127) / 128;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared(&full[s])) : "memory");
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 128;" ::"r"(shared(&empty[s])) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 128) {
            for (int i = 0; i < steps; i++) {
                int s = i % STAGES;
                wait(&empty[s], (i / STAGES & 1) ^ 1);
                asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared(&full[s])),
                             "r"(2 * BYTES) : "memory");
                load(a + s * BYTES, &map_a, &full[s], i * 128, blockIdx.y * 64);
                load(b + s * BYTES, &map_b, &full[s], i * 128, blockIdx.x * 64);
            }
        }
        return;
    }
    float d[32];
    for (int i = 0; i < 32; i++) d[i] = 0.0f;
    for (int i = 0; i < steps; i++) {
        int s = i % STAGES;
        wait(&full[s], i / STAGES & 1);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int j = 0; j < 4; j++) multiply(d, descriptor(a + s * BYTES) + 2 * j, descriptor(b + s * BYTES) + 2 * j);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared(&empty[s])) : "memory");
    }
    int row = blockIdx.y * 64 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, col = blockIdx.x * 64 + threadIdx.x % 4 * 2;
    for (int i = 0; i < 32; i++) {
        int r = row + i / 2 % 2 * 8, c = col + i / 4 * 8 + i % 2;
        if (r < m && c < n) out[(long long)r * n + c] = d[i];
    }
}
