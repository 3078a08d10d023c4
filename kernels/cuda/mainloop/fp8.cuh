#pragma once
#include "ptx/types.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/cluster.cuh"
#include "ptx/wgmma.cuh"
#include "ptx/wgmma_shared.cuh"
#include "tile/linear_fp8.cuh"
#include "tile/ring.cuh"

// FP8 weights times FP8 tokens, tile after tile. One thread asks for the bytes of steps, and does not stop between tiles:
// while sums are written, the first steps of the next tile arrive.

namespace fireq {

/// Shared memory of a product with FP8 weights.
template <typename Tile>
struct Fp8Memory {
    u8* base;

    __device__ u8* tokens(u32 stage) const { return base + stage * Tile::TOKEN_BYTES; }
    __device__ u8* weights(u32 stage) const { return base + Tile::WEIGHTS_AT + stage * Tile::WEIGHT_BYTES; }
    __device__ float* staged(u32 warpgroup, u32 buffer) const {
        return reinterpret_cast<float*>(base + Tile::STAGED_AT + (2 * warpgroup + buffer) * Tile::STAGED_BYTES);
    }
    __device__ u64* full(u32 stage) const { return reinterpret_cast<u64*>(base + Tile::BARRIERS_AT) + stage; }
    __device__ u64* empty(u32 stage) const { return full(stage + Tile::STAGES); }
    __device__ u64* turn(u32 warpgroup) const { return full(2 * Tile::STAGES + warpgroup); }
};

/// Readies the barriers. A stage is full when its bytes are there, and empty when every warp that multiplies it has let it
/// go, in all CTAs of the cluster: each writes to the tokens of all.
template <typename Tile>
__device__ inline void initialize(const Fp8Memory<Tile>& memory) {
#pragma unroll
    for (u32 stage = 0; stage < Tile::STAGES; ++stage) {
        initialize(memory.full(stage), 1);
        initialize(memory.empty(stage), Tile::OWNERS * Tile::CLUSTER);
    }
#pragma unroll
    for (u32 warpgroup = 0; warpgroup < Tile::WARPGROUPS; ++warpgroup) initialize(memory.turn(warpgroup), 4);
    publish_barriers();
}

/// What one thread of each CTA asks for. A tile's rows of the weight are together, or in two boxes so far `apart`.
template <typename Tile, int BOXES>
struct Fp8Source {
    Fp8Memory<Tile> memory;
    const TensorMap& x;
    const TensorMap& weight;
    u32 rank;
    u32 apart;
    Ring<Tile::STAGES> ring;

    /// The steps of a tile whose first token and channel these are.
    __device__ void ask(i32 token, i32 channel, u32 steps) {
        for (u32 step = 0; step < steps; ++step) {
            i32 column = static_cast<i32>(step * Tile::STEP);
            u64* full = memory.full(ring.stage);
            wait(memory.empty(ring.stage), ring.parity ^ 1);
            arrive_expecting(full, Tile::STEP_BYTES);
#pragma unroll
            for (u32 box = 0; box < BOXES; ++box) {
                copy_tile(memory.weights(ring.stage) + box * (Tile::WEIGHT_BYTES / BOXES), weight, column,
                          channel + static_cast<i32>(box * apart), full);
            }
            ask_tokens(column, token, full);
            ring.advance();
        }
    }

    /// This CTA's share of the tokens goes to all.
    __device__ void ask_tokens(i32 column, i32 token, u64* full) {
        if constexpr (Tile::CLUSTER == 1) {
            copy_tile(memory.tokens(ring.stage), x, column, token, full);
        } else {
            constexpr u16 ALL = (1 << Tile::CLUSTER) - 1;
            u32 first = rank * Tile::SHARE;
            copy_tile_to(ALL, memory.tokens(ring.stage) + first * Tile::STEP, x, column,
                         token + static_cast<i32>(first), full);
        }
    }
};

/// What a consumer warpgroup multiplies.
template <typename Tile>
struct Fp8Products {
    using Sums = float[Tile::TOKENS / 2];

    Fp8Memory<Tile> memory;
    Ring<Tile::STAGES> ring;
    /// Tiles that this warpgroup has multiplied, where they alternate.
    u32 tiles = 0;

    static __device__ u32 warpgroup() { return threadIdx.x / WARPGROUP; }

    /// Asks for the products of the next step; `KEEP`: sums of earlier ones count.
    template <bool KEEP>
    __device__ void ask(Sums& sums) {
        wait(memory.full(ring.stage), ring.parity);
        fence_products();
        constexpr u32 OWN = Tile::ALTERNATES ? 0 : 64 * Tile::STEP;
        u32 weights = matrix_place(memory.weights(0) + warpgroup() * OWN), tokens = matrix_place(memory.tokens(0));
        u64 a = swizzled_rows(weights + ring.stage * matrix_bytes(Tile::WEIGHT_BYTES));
        u64 b = swizzled_rows(tokens + ring.stage * matrix_bytes(Tile::TOKEN_BYTES));
#pragma unroll
        for (u32 part = 0; part < 4; ++part) {
            multiply_shared(sums, a + part * matrix_bytes(32), b + part * matrix_bytes(32), KEEP || part > 0);
        }
        commit_products();
        ring.advance();
    }

    /// Nothing of a stage is read any more: the CTAs that write to it learn that.
    __device__ void release(u32 stage) {
        u32 lane = threadIdx.x % WARP;
        if constexpr (Tile::CLUSTER == 1) {
            if (lane == 0) arrive(memory.empty(stage));
        } else {
            if (lane < Tile::CLUSTER) arrive_at(memory.empty(stage), lane);
        }
    }

    /// The sums of the next steps alone, at least one. The first is apart, so that sums do not seem to be read before it: they
    /// would take registers while those of the tile before are written.
    __device__ void multiply(u32 steps, Sums& sums) {
        u32 before = ring.stage;
        ask<false>(sums);
#pragma unroll 1
        for (u32 n = 1; n < steps; ++n) {
            u32 stage = ring.stage;
            ask<true>(sums);
            wait_for_products<1>();
            release(before);
            before = stage;
        }
        wait_for_products<0>();
        keep_in_place(sums);
        release(before);
    }

    /// The sums of a tile.
    __device__ void run(u32 steps, Sums& sums) {
        if constexpr (Tile::ALTERNATES) take_turn();
        if constexpr (Tile::PROMOTION == 0) {
            multiply(steps, sums);
        } else {
            promote(steps, sums);
        }
        if constexpr (Tile::ALTERNATES) give_turn();
    }

    /// Adds up the sums of a few steps at a time.
    __device__ void promote(u32 steps, Sums& sums) {
        Sums part;
#pragma unroll
        for (u32 n = 0; n < Tile::TOKENS / 2; ++n) sums[n] = 0.0f;
#pragma unroll 1
        for (u32 step = 0; step < steps; step += Tile::PROMOTION) {
            multiply(Tile::PROMOTION == 1 ? 1 : min(Tile::PROMOTION, steps - step), part);
#pragma unroll
            for (u32 n = 0; n < Tile::TOKENS / 2; ++n) sums[n] += part[n];
        }
    }

    /// Where warpgroups alternate: waits until the other has multiplied the tile before. A stage's parity tells this use
    /// from the last one only, so that nobody may look further ahead.
    __device__ void take_turn() { wait(memory.turn(warpgroup()), (tiles + warpgroup() + 1) & 1); }

    __device__ void give_turn() {
        if (threadIdx.x % WARP == 0) arrive(memory.turn(1 - warpgroup()));
        ++tiles;
    }
};

}  // namespace fireq
