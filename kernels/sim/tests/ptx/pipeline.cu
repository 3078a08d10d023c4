// A ring of stages filled by cp.async.bulk: warp 0 produces, four warps consume. out[i] is the sum over chunks of
// element i.
typedef unsigned int u32;
typedef unsigned long long u64;

#define STAGES 3
#define CHUNK 128

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

__device__ __forceinline__ void init(u64* bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared(bar)), "r"(count) : "memory");
}

__device__ __forceinline__ void arrive(u64* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared(bar)) : "memory");
}

extern "C" __global__ void __launch_bounds__(160) pipeline(const float* in, float* out, int chunks) {
    __shared__ alignas(128) float ring[STAGES][CHUNK];
    __shared__ u64 full[STAGES], empty[STAGES];
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            init(&full[s], 1);
            init(&empty[s], CHUNK);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        if (threadIdx.x == 0) {
            for (int c = 0; c < chunks; c++) {
                int s = c % STAGES, phase = c / STAGES & 1;
#ifndef NO_EMPTY_WAIT
                wait(&empty[s], phase ^ 1);
#endif
                asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared(&full[s])),
                             "r"(CHUNK * 4) : "memory");
                asm volatile(
                    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                        shared(ring[s])),
                    "l"(in + c * CHUNK), "r"(CHUNK * 4), "r"(shared(&full[s])) : "memory");
            }
        }
    } else {
        int i = threadIdx.x - 32;
        float sum = 0.0f;
        for (int c = 0; c < chunks; c++) {
            int s = c % STAGES, phase = c / STAGES & 1;
#ifdef WRONG_PARITY
            wait(&full[s], phase ^ 1);
#else
            wait(&full[s], phase);
#endif
            sum += ring[s][i];
            arrive(&empty[s]);
        }
        out[i] = sum;
    }
}
