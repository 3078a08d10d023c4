#pragma once
#include "ptx/types.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/wgmma.cuh"
#include "quant/table.cuh"
#include "tile/linear.cuh"
#include "tile/ring.cuh"

// INT4 weights times FP8 tokens. One thread of the producer warp asks for the bytes of a step; each consumer warpgroup
// decodes its 64 rows of weights into registers while the tensor cores multiply those of the step before.

namespace fireq {

/// Shared memory of a linear.
template <typename Tile>
struct LinearMemory {
    u8* base;

    __device__ u8* tokens(u32 stage) const { return base + stage * Tile::TOKEN_BYTES; }
    __device__ u8* record(u32 stage, u32 warpgroup) const {
        return base + Tile::RECORDS_AT + (stage * Tile::WARPGROUPS + warpgroup) * Tile::RECORD;
    }
    __device__ u64* full(u32 stage) const { return reinterpret_cast<u64*>(base + Tile::BARRIERS_AT) + stage; }
    __device__ u64* empty(u32 stage) const { return full(stage + Tile::STAGES); }
    __device__ float* sums() const { return reinterpret_cast<float*>(base); }
};

/// Readies the barriers: a stage is full when its bytes are there, and empty when every consumer warp has let it go.
template <typename Tile>
__device__ inline void initialize(const LinearMemory<Tile>& memory) {
#pragma unroll
    for (u32 stage = 0; stage < Tile::STAGES; ++stage) {
        initialize(memory.full(stage), 1);
        initialize(memory.empty(stage), Tile::CONSUMERS / WARP);
    }
    publish_barriers();
}

/// What one thread asks for: steps `first` to `end` of the tile's tokens and rows. `records` are those of the first warpgroup's
/// 64 rows, `apart` bytes from those of the next.
template <typename Tile>
__device__ inline void produce(const LinearMemory<Tile>& memory, const TensorMap& x, const u8* records, u64 apart,
                               i32 token, u32 first, u32 end) {
    Ring<Tile::STAGES> ring;
    for (u32 step = first; step < end; ++step) {
        wait(memory.empty(ring.stage), ring.parity ^ 1);
        u64* full = memory.full(ring.stage);
        arrive_expecting(full, Tile::STEP_BYTES);
#pragma unroll
        for (u32 w = 0; w < Tile::WARPGROUPS; ++w) {
            copy_bulk(memory.record(ring.stage, w), records + w * apart + static_cast<u64>(step) * Tile::RECORD,
                      Tile::RECORD, full);
        }
        copy_tile(memory.tokens(ring.stage), x, static_cast<i32>(step * Tile::STEP), token, full);
        ring.advance();
    }
}

/// Fragments of a step: four of 32 numbers of K.
using Fragments = u32[4][4];

/// Decodes this lane's rows of a record.
template <typename Tile>
__device__ inline void decode_step(const u8* record, Fragments& a) {
    u32 thread = threadIdx.x % WARPGROUP, lane = thread % WARP, warp = thread / WARP;
    Table low, high;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        if (half == 0 || Tile::GROUP == 64) {
            const u8* scales = record + Tile::CODES + half * 64 + warp * 16 + lane / 4 * 2;
            tables_of(*reinterpret_cast<const u16*>(scales), low, high);
        }
        uint4 codes = *reinterpret_cast<const uint4*>(record + (half * WARPGROUP + thread) * 16);
        decode(low, codes.x, a[2 * half][0], a[2 * half][2]);
        decode(high, codes.y, a[2 * half][1], a[2 * half][3]);
        decode(low, codes.z, a[2 * half + 1][0], a[2 * half + 1][2]);
        decode(high, codes.w, a[2 * half + 1][1], a[2 * half + 1][3]);
    }
}

/// Adds what the tensor cores have, once they are done with it.
template <int COUNT>
__device__ inline void promote(float (&running)[COUNT], float (&sums)[COUNT]) {
    wait_for_products<0>();
    keep_in_place(running);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) sums[i] += running[i];
}

/// Sums of the tensor cores beside those that they are added to. A structure, since compilers put an array and others of its
/// size, as the epilogue has, into one place, and read one of another type then: products would wait for each other.
template <typename Tile>
struct Beside {
    float sums[Tile::PROMOTION > 0 ? Tile::TOKENS / 2 : 1];
};

/// Sums of the steps that this CTA does, between promotions in the tensor cores' own order. `sums` are zero before.
template <typename Tile>
__device__ inline void consume(const LinearMemory<Tile>& memory, u32 steps, float (&sums)[Tile::TOKENS / 2]) {
    constexpr bool PROMOTES = Tile::PROMOTION > 0;
    u32 warpgroup = threadIdx.x / WARPGROUP;
    u32 first = matrix_place(memory.tokens(0));
    Ring<Tile::STAGES> ring, before;
    Fragments even, odd;
    Beside<Tile> beside = {};
    auto& running = *[&] {
        if constexpr (PROMOTES) return &beside.sums;
        else return &sums;
    }();
    // The step before is done: its registers may be decoded into, its bytes overwritten.
    auto let_go = [&] {
        if (threadIdx.x % WARP == 0) arrive(memory.empty(before.stage));
        before.advance();
    };
    auto step = [&](u32 n, Fragments& a, bool anew) {
        wait(memory.full(ring.stage), ring.parity);
        decode_step<Tile>(memory.record(ring.stage, warpgroup), a);
        // Of a number that comes from a lane, itself, the compiler does not know that it is 0 in the first round only: around
        // that round it would move the decoding behind the wait.
        u32 before_this = Tile::PROMOTION == 1 ? exchange(n, 0) : n;
        if (PROMOTES && anew && before_this > 0) {
            promote(running, sums);
            let_go();
        }
        fence_products();
#pragma unroll
        for (u32 part = 0; part < 4; ++part) {
            u32 place = first + ring.stage * matrix_bytes(Tile::TOKEN_BYTES) + part * matrix_bytes(32);
            multiply<Tile::TOKENS>(running, a[part], swizzled_rows(place), !anew || part > 0);
        }
        commit_products();
        ring.advance();
        if (n == 0 || (PROMOTES && anew)) return;
        wait_for_products<1>();
        let_go();
    };
    u32 n = 0;
    for (; n + 1 < steps; n += 2) {
        step(n, even, Tile::begins(n));
        step(n + 1, odd, Tile::PROMOTION == 1);
    }
    if (n < steps) step(n, even, Tile::begins(n));
    if constexpr (PROMOTES) {
        promote(running, sums);
    } else {
        wait_for_products<0>();
        keep_in_place(sums);
    }
}

}  // namespace fireq
