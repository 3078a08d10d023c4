#pragma once

// Copies from global to shared memory by the copy engine (TMA). One thread asks for each; its bytes count at a barrier.

namespace fireq {

/// A TMA descriptor: 128 bytes that the driver writes, passed by value in a kernel's parameters.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

/// `bytes` neighbouring bytes; both addresses and the number are multiples of 16.
__device__ inline void copy_bulk(void* to, const void* from, u32 bytes, u64* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

/// The tile of a matrix whose first element is at these coordinates. What lies outside the matrix is zero, and counts.
__device__ inline void copy_tile(void* to, const TensorMap& map, i32 column, i32 row, u64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
        "l"(&map), "r"(column), "r"(row), "r"(shared_address(barrier))
        : "memory");
}

/// The tile of a tensor of three dimensions whose first element is at these coordinates, the innermost first.
__device__ inline void copy_tile(void* to, const TensorMap& map, i32 column, i32 row, i32 plane, u64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(to)),
        "l"(&map), "r"(column), "r"(row), "r"(plane), "r"(shared_address(barrier))
        : "memory");
}

}  // namespace fireq
