#pragma once

// Barriers in shared memory that count arrivals of threads and bytes of asynchronous copies (mbarrier). A barrier's phases
// alternate between parity 0 and 1, beginning with 0. Some take a barrier by what instructions take as its address.

namespace fireq {

/// What instructions on shared memory take as an address.
__device__ inline u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

/// A phase ends after `arrivals` of them, and after all bytes that were announced. One thread does this.
__device__ inline void initialize(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

/// What this thread wrote to shared memory can be read by tensor cores and copies, once the CTA has synchronized.
__device__ inline void publish_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Barriers that this thread initialized can be used by copies and by the other CTAs of the cluster.
__device__ inline void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    publish_writes();
}

__device__ inline void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ inline void arrive(u64* barrier) { arrive(shared_address(barrier)); }

/// Arrives, and announces `bytes` of copies.
__device__ inline void arrive_expecting(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

/// Whether the phase of this parity has ended; it is given some time to.
__device__ inline bool has_ended(u64* barrier, u32 parity) {
    u32 done;
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;\n"
        "}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
    return done != 0;
}

/// Waits until the phase of this parity has ended.
__device__ inline void wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra AGAIN;\n"
        "DONE:\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

__device__ inline void wait(u64* barrier, u32 parity) { wait(shared_address(barrier), parity); }

}  // namespace fireq
