// A cluster of two: rank 0 loads a chunk into both CTAs (multicast), each reverses it and reads the other's result
// through distributed shared memory: out[rank][i] = in[i] of the chunk, from the other CTA, plus the other's rank.
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(64) cluster(const u32* in, u32* out) {
    __shared__ alignas(128) u32 chunk[64];
    __shared__ u32 reversed[64];
    __shared__ u64 bar;
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared(&bar)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 256;" ::"r"(shared(&bar)) : "memory");
    }
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
    if (rank == 0 && threadIdx.x == 0)
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 256, [%2], "
            "%3;" ::"r"(shared(chunk)), "l"(in + blockIdx.x / 2 * 64), "r"(shared(&bar)), "h"((unsigned short)3)
            : "memory");
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], 0;\n"
        "@!done bra AGAIN;\n"
        "}" ::"r"(shared(&bar)) : "memory");
    reversed[63 - threadIdx.x] = chunk[threadIdx.x] + rank;
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
    u32 there, value;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared(&reversed[63 - threadIdx.x])), "r"(rank ^ 1));
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(there) : "memory");
    out[blockIdx.x * 64 + threadIdx.x] = value;
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
