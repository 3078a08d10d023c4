// Asynchronous copies: tiles with swizzles and edges, bulk copies, phases of barriers, clusters.
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;

struct alignas(64) Map {
    u8 bytes[128];
};

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void init(u64* bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\nfence.mbarrier_init.release.cluster;" ::"r"(shared(bar)),
                 "r"(count) : "memory");
}

__device__ __forceinline__ void expect(u64* bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared(bar)), "r"(bytes) : "memory");
}

__device__ __forceinline__ u32 test(u64* bar, u32 parity) {
    u32 done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(done) : "r"(shared(bar)), "r"(parity) : "memory");
    return done;
}

__device__ __forceinline__ void wait(u64* bar, u32 parity) {
    while (!test(bar, parity)) {
    }
}

__device__ __forceinline__ void meet() {
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

struct Tile {
    Map map;
    u8* out;
    const u8* in;
    int x, y;
    u32 bytes;
};

// The bytes of a tile as they lie in shared memory.
extern "C" __global__ void __launch_bounds__(128) load_tile(const __grid_constant__ Tile p) {
    __shared__ alignas(1024) u8 tile[8192];
    __shared__ u64 bar;
    if (threadIdx.x == 0) {
        init(&bar, 1);
        expect(&bar, p.bytes);
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
                shared(tile)), "l"(&p.map), "r"(shared(&bar)), "r"(p.x), "r"(p.y) : "memory");
    }
    __syncthreads();
    wait(&bar, 0);
    for (u32 i = threadIdx.x; i < p.bytes; i += 128) p.out[i] = tile[i];
}

// A tile from shared memory, filled as it lies there.
extern "C" __global__ void __launch_bounds__(128) store_tile(const __grid_constant__ Tile p) {
    __shared__ alignas(1024) u8 tile[8192];
    for (u32 i = threadIdx.x; i < p.bytes; i += 128) tile[i] = p.in[i];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (threadIdx.x == 0)
        asm volatile(
            "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];\n"
            "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::"l"(&p.map), "r"(shared(tile)), "r"(p.x), "r"(p.y)
            : "memory");
}

struct Bulk {
    const u32* in;
    u32* out;
};

// 1024 words to shared memory and back, in pieces of 256 on one barrier, one phase each; out[1024 …]: for every phase what
// both parities of the barrier say before and after it.
extern "C" __global__ void __launch_bounds__(32) phases(const __grid_constant__ Bulk p) {
    __shared__ alignas(128) u32 piece[4][256];
    __shared__ u64 bar;
    if (threadIdx.x != 0) return;
    init(&bar, 1);
    for (int i = 0; i < 4; i++) {
        u32* seen = p.out + 1024 + 4 * i;
        seen[0] = test(&bar, 0), seen[1] = test(&bar, 1);
        expect(&bar, 1024);
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 1024, [%2];" ::"r"(
                shared(piece[i])), "l"(p.in + 256 * i), "r"(shared(&bar)) : "memory");
        wait(&bar, i & 1);
        seen[2] = test(&bar, 0), seen[3] = test(&bar, 1);
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 1024;\ncp.async.bulk.commit_group;" ::"l"(
                         p.out + 256 * i), "r"(shared(piece[i])) : "memory");
    }
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Rank 0 loads 64 words into both CTAs of its cluster; each adds its rank, and reads what the other has in reverse.
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(64) multicast(const __grid_constant__ Bulk p) {
    __shared__ alignas(128) u32 chunk[64];
    __shared__ u32 reversed[64];
    __shared__ u64 bar;
    u32 rank, there, value;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) {
        init(&bar, 1);
        expect(&bar, 256);
    }
    meet();
    if (rank == 0 && threadIdx.x == 0)
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 256, [%2], "
            "%3;" ::"r"(shared(chunk)), "l"(p.in + blockIdx.x / 2 * 64), "r"(shared(&bar)), "h"((unsigned short)3)
            : "memory");
    wait(&bar, 0);
    reversed[63 - threadIdx.x] = chunk[threadIdx.x] + rank;
    meet();
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared(&reversed[threadIdx.x])), "r"(rank ^ 1));
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(there) : "memory");
    p.out[blockIdx.x * 64 + threadIdx.x] = value;
    meet();
}
