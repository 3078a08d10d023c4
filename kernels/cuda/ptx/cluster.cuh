#pragma once

// CTAs of a cluster.

namespace fireq {

__device__ inline u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/// All threads of the cluster arrive before any goes on, and see what the others wrote to shared memory.
__device__ inline void synchronize_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Four floats at the address that `local` has in the shared memory of the CTA of this rank.
__device__ inline void load_remote(const float* local, u32 rank, float (&to)[4]) {
    u32 address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(local)), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
                 : "r"(address)
                 : "memory");
}

/// Arrives at the barrier that the CTA of this rank has at the address of `local`: for bytes that tensor cores have read and
/// copies will overwrite, which the waits for both order. What this thread has written it does not release to other CTAs:
/// that takes a fence of all memory, at every arrival.
__device__ inline void arrive_at(u64* local, u32 rank) {
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.release.cta.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(local)), "r"(rank)
                 : "memory");
}

/// As `copy_tile`, to the same address in every CTA whose rank's bit is set in `ranks`; bytes count at each one's own barrier.
__device__ inline void copy_tile_to(u16 ranks, void* to, const TensorMap& map, i32 column, i32 row, u64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
        "l"(&map), "r"(column), "r"(row), "r"(shared_address(barrier)), "h"(ranks)
        : "memory");
}

/// As `copy_tile` of a tensor of three dimensions, likewise.
__device__ inline void copy_tile_to(u16 ranks, void* to, const TensorMap& map, i32 column, i32 row, i32 plane,
                                    u64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared_address(to)),
        "l"(&map), "r"(column), "r"(row), "r"(plane), "r"(shared_address(barrier)), "h"(ranks)
        : "memory");
}

}  // namespace fireq
