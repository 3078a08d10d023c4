#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"
#include "ptx/wgmma.cuh"
#include "quant/table.cuh"
#include "tile/linear.cuh"
#include "tile/ring.cuh"

// INT4 weights times FP8 tokens. One thread of the producer warp asks for the bytes of a step; each consumer warpgroup
// decodes its 64 rows of weights into registers while the tensor cores multiply those of the step before.

namespace fireq {

/// Shared memory of a linear. A stage has the tokens of its steps one after the other, and the records of a warpgroup's steps.
template <typename Tile>
struct LinearMemory {
    u8* base;

    __device__ u8* tokens(u32 stage) const { return base + stage * (Tile::STEPS * Tile::TOKEN_BYTES); }
    __device__ u8* records(u32 stage, u32 warpgroup) const {
        return base + Tile::RECORDS_AT + (stage * Tile::WARPGROUPS + warpgroup) * (Tile::STEPS * Tile::RECORD);
    }
    __device__ u64* full(u32 stage) const { return reinterpret_cast<u64*>(base + Tile::BARRIERS_AT) + stage; }
    __device__ u64* empty(u32 stage) const { return full(stage + Tile::STAGES); }
    __device__ float* sums() const { return reinterpret_cast<float*>(base + Tile::SUMS_AT); }
};

/// Readies the barriers: a stage is full when its bytes are there, and empty when every consumer warp has let it go, in all CTAs
/// that have the same tokens: each writes to all.
template <typename Tile>
__device__ inline void initialize(const LinearMemory<Tile>& memory) {
#pragma unroll
    for (u32 stage = 0; stage < Tile::STAGES; ++stage) {
        initialize(memory.full(stage), 1);
        initialize(memory.empty(stage), Tile::CONSUMERS / WARP * Tile::CLUSTER);
    }
    publish_barriers();
}

/// The tokens of step `n` of a stage, for those of the cluster's CTAs that have the same part of K as this one, of rank `rank`.
template <typename Tile>
__device__ inline void ask_tokens(u8* to, const TensorMap& x, i32 column, i32 token, u64* full, u32 n, u32 rank) {
    if constexpr (Tile::CLUSTER == 1) {
        copy_tile(to, x, column, token, full);
    } else {
        constexpr u32 EVERY = ((1 << Tile::CTAS) - 1) / ((1 << Tile::SPLIT) - 1);
        u16 sharers = static_cast<u16>(EVERY << rank % Tile::SPLIT);
        if (n % Tile::CLUSTER == rank / Tile::SPLIT) copy_tile_to(sharers, to, x, column, token, full);
    }
}

/// Announces the bytes of a stage's `count` steps, and asks for their records. Those of the first warpgroup's 64 rows begin at
/// `records`, `apart` bytes from those of the next.
template <typename Tile>
__device__ inline void ask_records(const LinearMemory<Tile>& memory, u32 stage, const u8* records, u64 apart, u32 step,
                                   u32 count) {
    u64* full = memory.full(stage);
    arrive_expecting(full, count * Tile::STEP_BYTES);
#pragma unroll
    for (u32 w = 0; w < Tile::WARPGROUPS; ++w) {
        copy_bulk(memory.records(stage, w), records + w * apart + static_cast<u64>(step) * Tile::RECORD,
                  count * Tile::RECORD, full);
    }
}

/// Asks for the records of as many stages as there are, before their tokens may be read: no launch writes weights. The first
/// step behind them.
template <typename Tile>
__device__ inline u32 ask_ahead(const LinearMemory<Tile>& memory, const u8* records, u64 apart, u32 first, u32 end) {
    u32 step = first;
    for (u32 stage = 0; stage < Tile::STAGES && step < end; ++stage, step += Tile::STEPS) {
        ask_records(memory, stage, records, apart, step, min(Tile::STEPS, end - step));
    }
    return step;
}

/// Steps of a tile, of which `first` to `ahead` have been asked for their records in stages that were empty.
struct Steps {
    u32 first, ahead, end;
};

/// What one thread asks for: tokens and rows of the tile's steps; the last stage may have fewer than others.
template <typename Tile>
__device__ inline void produce(const LinearMemory<Tile>& memory, Ring<Tile::STAGES>& ring, const TensorMap& x, const u8* records, u64 apart,
                               i32 token, const Steps& steps, u32 rank) {
    for (u32 step = steps.first; step < steps.end; step += Tile::STEPS) {
        u32 count = min(Tile::STEPS, steps.end - step);
        if (step >= steps.ahead) {
            wait(memory.empty(ring.stage), ring.parity ^ 1);
            ask_records(memory, ring.stage, records, apart, step, count);
        }
        u64* full = memory.full(ring.stage);
#pragma unroll
        for (u32 n = 0; n < Tile::STEPS; ++n) {
            if (n == count) break;
            ask_tokens<Tile>(memory.tokens(ring.stage) + n * Tile::TOKEN_BYTES, x,
                             static_cast<i32>((step + n) * Tile::STEP), token, full, n, rank);
        }
        ring.advance();
    }
}

/// Fragments of a step: four of 32 numbers of K.
using Fragments = u32[4][4];

/// Decodes this lane's rows of a record, whose codes and scales have these addresses in shared memory.
template <typename Tile>
__device__ inline void decode_step(u32 codes_at, u32 scales_at, Fragments& a) {
    Table low, high;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        if (half == 0 || Tile::GROUP == 64) tables_of(load_shared_u16(scales_at + half * 64), low, high);
        uint4 codes = load_shared_u128(codes_at + half * WARPGROUP * 16);
        decode(low, codes.x, a[2 * half][0], a[2 * half][2]);
        decode(high, codes.y, a[2 * half][1], a[2 * half][3]);
        decode(low, codes.z, a[2 * half + 1][0], a[2 * half + 1][2]);
        decode(high, codes.w, a[2 * half + 1][1], a[2 * half + 1][3]);
    }
}

/// Adds what the tensor cores have, once they are done with it, and before they have anything else.
template <int COUNT>
__device__ inline void promote(float (&running)[COUNT], float (&sums)[COUNT]) {
    wait_for_products<0>();
    keep_in_place(running);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) sums[i] += running[i];
    keep_in_place(sums);
}

/// Sums of the tensor cores beside those that they are added to. A structure, since compilers put an array and others of its
/// size, as the epilogue has, into one place, and read one of another type then: products would wait for each other.
template <typename Tile>
struct Beside {
    float sums[Tile::PROMOTION > 0 ? Tile::TOKENS / 2 : 1];
};

/// Sums of the steps that this CTA does, between promotions in the tensor cores' own order. `sums` are zero before.
///
/// Few tokens take as long as schedulers need for the decoding, so that little is done beside it: addresses are a multiplication
/// away from what a thread keeps, and of the barriers to arrive at a lane each has the address and others zero. A loop that waits
/// once, at its head, and does not branch has descriptors in registers that a warp shares, an addition each.
template <typename Tile>
__device__ inline void consume(const LinearMemory<Tile>& memory, Ring<Tile::STAGES>& ring, u32 steps, u32 rank,
                               float (&sums)[Tile::TOKENS / 2]) {
    constexpr bool PROMOTES = Tile::PROMOTION > 0;
    u32 warpgroup = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP, lane = thread % WARP;
    u32 records = shared_address(memory.records(0, warpgroup));
    u32 codes = opaque(records + thread * 16);
    u32 scales = opaque(records + Tile::CODES + thread / WARP * 16 + lane / 4 * 2);
    u32 place = opaque(matrix_place(memory.tokens(0))), full = opaque(shared_address(memory.full(0)));
    u32 whole = opaque(steps / Tile::STEPS * Tile::STEPS), tells = opaque(lane < Tile::CLUSTER ? ~0u : 0u);
    u32 empty = shared_address(memory.empty(0));
    if constexpr (Tile::CLUSTER > 1) {
        empty = opaque(address_at(empty, lane % Tile::CLUSTER * Tile::SPLIT + rank % Tile::SPLIT));
    }
    u32 taken = ctas_in_y();
    Fragments even, odd;
    Beside<Tile> beside = {};
    auto& running = *[&] {
        if constexpr (PROMOTES) return &beside.sums;
        else return &sums;
    }();
    keep_in_place(running);
    // The stage before is done: its bytes may be overwritten. Before the first there is none.
    u32 before = 0;
    auto let_go = [&] {
        if (before == 0) return;
        if constexpr (Tile::CLUSTER == 1) {
            arrive(before);
        } else {
            arrive_there(before);
        }
    };
    auto next_stage = [&] {
        before = (Tile::CLUSTER == 1 ? full + ring.stage * 8 + Tile::STAGES * 8 : empty + ring.stage * 8) & tells;
        ring.advance();
    };
    // Step `n` of the stage behind `done` steps. Behind its last wait the step before is done, whose registers are decoded into
    // next.
    auto step = [&](u32 done, u32 n, Fragments& a) {
        bool anew = Tile::begins(done, n);
        u32 barrier = full + ring.stage * 8;
        if (n == 0) wait(barrier, ring.parity);
        u32 record = ring.stage * (Tile::WARPGROUPS * Tile::STEPS * Tile::RECORD) + n * Tile::RECORD;
        decode_step<Tile>(codes + record, scales + record, a);
        // Where every stage begins anew, a branch that is always taken keeps the decoding in front of the wait for products.
        if (anew && (Tile::PROMOTION > Tile::STEPS || taken > 0)) {
            promote(running, sums);
            if (n == 0) let_go();
        }
        fence_products();
        u64 rows = swizzled_rows(place + ring.stage * matrix_bytes(Tile::STEPS * Tile::TOKEN_BYTES));
#pragma unroll
        for (u32 part = 0; part < 4; ++part) {
            multiply<Tile::TOKENS>(running, a[part], rows + matrix_bytes(n * Tile::TOKEN_BYTES + part * 32),
                                   !anew || part > 0);
        }
        commit_products();
        wait_for_products<1>();
        if (n == 0 && !anew) let_go();
        if (n == Tile::STEPS - 1) {
            next_stage();
        }
    };
    for (u32 done = 0; done < whole; done += Tile::STEPS) {
#pragma unroll
        for (u32 n = 0; n < Tile::STEPS; ++n) step(done, n, n % 2 == 0 ? even : odd);
    }
#pragma unroll
    for (u32 n = 0; n + 1 < Tile::STEPS; ++n) {
        if (whole + n < steps) step(whole, n, n % 2 == 0 ? even : odd);
    }
    if constexpr (PROMOTES) {
        promote(running, sums);
    } else {
        wait_for_products<0>();
        keep_in_place(sums);
    }
    if constexpr (Tile::BAND > 0) {
        if (whole < steps) next_stage();
        let_go();
    }
}

}  // namespace fireq
