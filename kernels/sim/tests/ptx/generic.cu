// wgmma whose operands threads put into registers and shared memory themselves, in three layouts.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
typedef unsigned char u8;

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ u64 descriptor(const void* p, u32 leading, u32 stride, u32 swizzle) {
    return (u64)((shared(p) & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | (u64)swizzle << 62;
}

__device__ __forceinline__ void begin() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void end() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// D is 64 × 8·n8; thread t of the warpgroup holds these elements.
template <int n8> __device__ __forceinline__ void write(float* out, const float (&d)[4 * n8]) {
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 2;
    for (int i = 0; i < 4 * n8; i++) out[(row + i / 2 % 2 * 8) * 8 * n8 + col + i / 4 * 8 + i % 2] = d[i];
}

// E4M3: A (64 × 32) in registers, B (16 × 32) in core matrices of 8 × 16 bytes.
extern "C" __global__ void __launch_bounds__(128) registers(const u8* a, const u8* b, float* out) {
    __shared__ alignas(128) u8 tile[512];
    for (int i = threadIdx.x; i < 512; i += 128) {
        int n = i / 32, k = i % 32;
        tile[n % 8 * 16 + n / 8 * 256 + k / 16 * 128 + k % 16] = b[i];
    }
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 4;
    const u32* words = (const u32*)a;
    u32 a0 = words[(row * 32 + col) / 4], a1 = words[((row + 8) * 32 + col) / 4];
    u32 a2 = words[(row * 32 + col + 16) / 4], a3 = words[((row + 8) * 32 + col + 16) / 4];
    float d[8] = {};
    begin();
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, "
        "0, 1, 1;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(descriptor(tile, 128, 256, 0)));
    end();
    write<2>(out, d);
}

// BF16: A (16 × 64, rows are K) and B (16 × 8, rows are K) with their outer dimension contiguous.
extern "C" __global__ void __launch_bounds__(128) transposed(const u16* a, const u16* b, float* out) {
    __shared__ alignas(1024) u8 tile_a[2048];
    __shared__ alignas(128) u8 tile_b[256];
    for (int i = threadIdx.x; i < 1024; i += 128) {
        int k = i / 64, m = i % 64, at = k * 128 + m * 2;
        *(u16*)(tile_a + (at ^ (k % 8) << 4)) = a[i];
    }
    int k = threadIdx.x / 8, n = threadIdx.x % 8;
    *(u16*)(tile_b + k * 16 + n * 2) = b[threadIdx.x];
    float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    begin();
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, -1, 1, 1, 1;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "l"(descriptor(tile_a, 16, 1024, 1)), "l"(descriptor(tile_b, 128, 16, 0)));
    end();
    write<1>(out, d);
}

// BF16, K-major, rows of 32 bytes swizzled in pairs of chunks: A 64 × 16, B 8 × 16. The accumulator moves between two
// products that are in flight together.
extern "C" __global__ void __launch_bounds__(128) narrow(const u16* a, const u16* b, float* out) {
    __shared__ alignas(256) u8 tile_a[2048];
    __shared__ alignas(256) u8 tile_b[256];
    for (int i = threadIdx.x; i < 1024; i += 128) {
        int row = i / 16, k = i % 16, at = row * 32 + k * 2;
        *(u16*)(tile_a + (at ^ (row / 4 % 2) << 4)) = a[i];
    }
    int row = threadIdx.x / 16, at = row * 32 + threadIdx.x % 16 * 2;
    *(u16*)(tile_b + (at ^ (row / 4 % 2) << 4)) = b[threadIdx.x];
    float d[4];
    begin();
    asm volatile(
        "{\n"
        ".reg .f32 x<4>;\n"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {x0, x1, x2, x3}, %4, %5, 0, 1, 1, 0, 0;\n"
        "mov.f32 %0, x0;\nmov.f32 %1, x1;\nmov.f32 %2, x2;\nmov.f32 %3, x3;\n"
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;\n"
        "}"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "l"(descriptor(tile_a, 16, 256, 3)), "l"(descriptor(tile_b, 16, 256, 3)));
    end();
    write<1>(out, d);
}
