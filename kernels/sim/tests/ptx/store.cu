// out = 2 · in for a tile of 16 × 64 floats that leaves through a tensor-map store.
typedef unsigned int u32;

struct alignas(64) Map { unsigned char bytes[128]; };

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

extern "C" __global__ void __launch_bounds__(128) store(const __grid_constant__ Map map, const float* in) {
    __shared__ alignas(128) float tile[16][64];
    for (int i = threadIdx.x; i < 16 * 64; i += 128) tile[i / 64][i % 64] = 2.0f * in[blockIdx.x * 1024 + i];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
                     "r"(shared(tile)), "r"(0), "r"(blockIdx.x * 16) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
#ifdef REUSE
    tile[0][threadIdx.x % 64] = 0.0f;
#endif
}
