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

/// What the address `local` of shared memory is for the CTA of this rank; neighbouring bytes are neighbours there, too.
__device__ inline u32 address_at(u32 local, u32 rank) {
    u32 address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(local), "r"(rank));
    return address;
}

/// One, two or four floats at the address that `local` has in the shared memory of the CTA of this rank.
template <int N>
__device__ inline void load_remote(const float* local, u32 rank, float (&to)[N]) {
    static_assert(N == 1 || N == 2 || N == 4, "loads are 4, 8 or 16 bytes");
    u32 address = address_at(shared_address(local), rank);
    if constexpr (N == 1) {
        asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(to[0]) : "r"(address) : "memory");
    } else if constexpr (N == 2) {
        asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(to[0]), "=f"(to[1]) : "r"(address) : "memory");
    } else {
        asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
                     : "r"(address)
                     : "memory");
    }
}

/// Arrives at the barrier with this address in the cluster: for bytes that tensor cores have read and copies will overwrite,
/// which the waits for both order. What this thread has written it does not release to other CTAs: that takes a fence of all
/// memory, at every arrival.
__device__ inline void arrive_there(u32 barrier) {
    asm volatile("mbarrier.arrive.release.cta.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives at the barrier that the CTA of this rank has at the address of `local`.
__device__ inline void arrive_at(u64* local, u32 rank) { arrive_there(address_at(shared_address(local), rank)); }

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
