#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "ptx/warp.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bulk.cuh"
#include "ptx/wgmma.cuh"
#include "tile/decode_attention.cuh"
#include "tile/page.cuh"
#include "tile/ring.cuh"
#include "quant/page.cuh"
#include "quant/column_softmax.cuh"

// Attention of a token over INT4 keys and values of pages. One warp asks for tiles; a warpgroup decodes them into registers,
// where tensor cores take them from: keys · queries, then values · probabilities, which go through shared memory. Each
// block of 64 × 64 codes is decoded while the one before is multiplied.

namespace fireq {

template <typename Tile>
__device__ inline void initialize(const DecodeMemory<Tile>& memory) {
#pragma unroll
    for (u32 stage = 0; stage < Tile::STAGES; ++stage) {
        initialize(memory.full(stage), 1);
        initialize(memory.empty(stage), Tile::CONSUMERS / WARP);
    }
    publish_barriers();
}

/// What a warp asks for: tiles `first` to `end` of a sequence. Its lanes look up 32 pages at a time.
template <typename Tile>
__device__ inline void produce(const DecodeMemory<Tile>& memory, const u8* pages, u64 page_stride, const u32* table,
                               u32 kv_head, u32 first, u32 end) {
    using Page = typename Tile::Page;
    Ring<Tile::STAGES> ring;
    u32 lane = threadIdx.x % WARP;
    for (u32 base = first; base < end; base += WARP) {
        u32 known = base + lane < end ? table[(base + lane) / Page::TILES] : 0;
        for (u32 tile = base; tile < min(base + WARP, end); ++tile) {
            u64 page = of_lane(known, tile - base);
            if (lane == 0) {
                wait(memory.empty(ring.stage), ring.parity ^ 1);
                u64* full = memory.full(ring.stage);
                arrive_expecting(full, Page::BYTES);
                const u8* from = pages + page * page_stride + Page::tile_at(kv_head, tile % Page::TILES);
                copy_bulk(memory.tile(ring.stage), from, Page::BYTES, full);
            }
            ring.advance();
        }
    }
}

/// Sums over keys for the queries of a kv head.
template <typename Tile>
struct Decoding {
    using Page = typename Tile::Page;
    using Sums = float[Tile::SUMS];

    DecodeMemory<Tile> memory;
    ColumnSoftmax<Tile> softmax;
    float total[Tile::COLUMNS];  // of probabilities as rounded
    Sums o[Tile::BLOCKS];        // rows are channels
    u32 ones[4];                 // operand A of which all numbers are 1
    Ring<Tile::STAGES> ring;

    // Where this lane's part of things is. What comes from lanes, as in `begin`, compilers do not compute anew for every use.
    u32 codes_at, key, value;         // bytes of a block, and the first positions whose scales are used
    u32 queries_at, probabilities_at; // words of descriptors

    static __device__ u64 columns(u32 word, int n) {
        return core_matrices_at(word + matrix_bytes(2 * Tile::SIXTEEN) * static_cast<u32>(n));
    }

    /// Products of TILES tiles of keys with the queries.
    template <int TILES>
    __device__ void score(Sums (&s)[TILES]) {
        Fragments a[2];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            wait(memory.full(ring.stage + tile), ring.parity);
            const u8* from = memory.tile(ring.stage + tile);
            KeyScales scales = key_scales<Page>(from, key);
#pragma unroll
            for (int block = 0; block < Tile::BLOCKS; ++block) {
                Fragments& now = a[(tile * Tile::BLOCKS + block) % 2];
                decode_keys<Page>(from, block, codes_at, scales, now);
                fence_products();
#pragma unroll
                for (int part = 0; part < 2; ++part) {
                    multiply<Tile::QUERIES>(s[tile], now[part], columns(queries_at, 2 * block + part),
                                            block > 0 || part > 0);
                }
                commit_products();
                wait_for_products<1>();
            }
        }
        wait_for_products<0>();
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) keep_in_place(s[tile]);
    }

    /// One block of values of a tile, and with the first the sums of probabilities: products with ones.
    __device__ void ask_values(int tile, int block, const Fragments& a, Sums& o, Sums& sum) const {
        fence_products();
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            u64 p = columns(probabilities_at, 2 * tile + part);
            multiply<Tile::QUERIES>(o, a[part], p, tile > 0 || part > 0);
            if (block == 0) multiply<Tile::QUERIES>(sum, ones, p, tile > 0 || part > 0);
        }
        commit_products();
    }

    /// TILES tiles, of whose keys `visible` are seen: all but some of the last tile's.
    template <int TILES>
    __device__ void step(i32 visible) {
        Sums s[TILES], part[Tile::BLOCKS], sum;
        float rescale[Tile::COLUMNS];
        score<TILES>(s);
        i32 last = visible - (TILES - 1) * Tile::KEYS;
        if (last < Tile::KEYS) softmax.mask(s[TILES - 1], key, last);
        softmax.template offer<TILES>(memory, s);
        // The first values are decoded while warps wait for each other.
        Fragments a[2];
        const u8* from = memory.tile(ring.stage);
        ValueScales scales = value_scales<Page>(from, value, TILES == 1 ? last : Tile::KEYS);
        decode_values<Page>(from, 0, codes_at, scales, a[0]);
        synchronize_first<Tile::CONSUMERS>();
        softmax.raise(memory, rescale);
        softmax.template store<TILES>(memory, s);
        synchronize_first<Tile::CONSUMERS>();
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            from = memory.tile(ring.stage + tile);
            if (tile > 0) scales = value_scales<Page>(from, value, tile == TILES - 1 ? last : Tile::KEYS);
#pragma unroll
            for (int block = 0; block < Tile::BLOCKS; ++block) {
                Fragments& now = a[(tile * Tile::BLOCKS + block) % 2];
                if (tile > 0 || block > 0) decode_values<Page>(from, block, codes_at, scales, now);
                ask_values(tile, block, now, part[block], sum);
                wait_for_products<1>();
            }
            if (threadIdx.x % WARP == 0) arrive(memory.empty(ring.stage + tile));
        }
        wait_for_products<0>();
        keep_in_place(sum);
#pragma unroll
        for (int block = 0; block < Tile::BLOCKS; ++block) keep_in_place(part[block]);
        add(part, sum, rescale);
        ring.skip(TILES);
    }

    /// Tensor cores keep few bits of long sums: those of a step are added to others in f32.
    __device__ void add(const Sums (&part)[Tile::BLOCKS], const Sums& sum, const float (&rescale)[Tile::COLUMNS]) {
#pragma unroll
        for (int column = 0; column < Tile::COLUMNS; ++column) {
            total[column] = multiply_add(total[column], rescale[column], sum[column / 2 * 4 + column % 2]);
        }
#pragma unroll
        for (int block = 0; block < Tile::BLOCKS; ++block) {
#pragma unroll
            for (int n = 0; n < Tile::SUMS; ++n) {
                o[block][n] = multiply_add(o[block][n], rescale[Tile::column(n)], part[block][n]);
            }
        }
    }

    /// Before the first tile.
    __device__ void begin() {
        u32 lane = threadIdx.x % WARP;
        codes_at = exchange(threadIdx.x * 16, 0);
        key = exchange(key_position(threadIdx.x / WARP, lane / 4), 0);
        value = exchange(lane % 4 * 16, 0);
        queries_at = exchange(core_matrices<Tile::SIXTEEN>(matrix_place(memory.queries())), 0);
        probabilities_at = exchange(core_matrices<Tile::SIXTEEN>(matrix_place(memory.probabilities(0))), 0);
#pragma unroll
        for (int n = 0; n < 4; ++n) ones[n] = exchange(0x38383838u, 0);
#pragma unroll
        for (int column = 0; column < Tile::COLUMNS; ++column) softmax.highest[column] = float_of_bits(0xff800000u);
    }

    /// All of `tiles` tiles, of whose keys `visible` are seen.
    __device__ void run(u32 tiles, i32 visible) {
        begin();
        for (; tiles >= Tile::STEP; tiles -= Tile::STEP) {
            step<Tile::STEP>(visible);
            visible -= Tile::STEP * Tile::KEYS;
        }
        if (Tile::STEP > 2 && tiles >= 2) {
            step<2>(visible);
            visible -= 2 * Tile::KEYS;
        }
        if (tiles % 2 == 1) step<1>(visible);
    }
};

}  // namespace fireq
