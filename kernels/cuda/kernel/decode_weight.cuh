#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/launch.cuh"
#include "ptx/warp.cuh"
#include "quant/table.cuh"

// Records of INT4 weights to rows of E4M3 (FireQ section 7): each weight is decoded once for all tokens of a large prefill,
// to the very number that products look up. A CTA has two records, those of 128 rows; a warp has 16 rows of one.

namespace fireq::decode_weight {

struct Params {
    const u8* records;  // [channels/64, cols/128] records of codes and scales
    e4m3* rows;         // [channels rounded up to 128, cols rounded up to 128]
    u32 steps;          // of 128 columns
};

inline constexpr u32 RECORD_ROWS = 64;
inline constexpr u32 RECORD_COLS = 128;
inline constexpr u32 CODES = RECORD_ROWS * RECORD_COLS / 2;
inline constexpr u32 RECORD_THREADS = 128;

/// Sixteen neighbouring columns of a row from four lanes: each has four codes of every sixteen in the halves of `low` and
/// `high`, in the order of the columns, and gets those of the sixteen that its number t of the four names.
__device__ inline void gather_sixteen(u32 low, u32 high, u32 (&codes)[2]) {
    u32 t = threadIdx.x % 4;
    // Lanes with an even t keep the first and third sixteen, the others the second and fourth.
    u32 kept = bytes(low, high, t % 2 == 0 ? 0x5410 : 0x7632);
    u32 sent = bytes(low, high, t % 2 == 0 ? 0x7632 : 0x5410);
    u32 got = exchange(sent, 1);
    u32 first = t % 2 == 0 ? kept : got, second = t % 2 == 0 ? got : kept;
    u32 pairs[2] = {bytes(first, second, 0x5410), bytes(first, second, 0x7632)};
    // Lanes 0 and 1 keep the sixteens of the low half, 2 and 3 those of the high one.
    u32 mine = t < 2 ? pairs[0] : pairs[1];
    u32 theirs = exchange(t < 2 ? pairs[1] : pairs[0], 2);
    codes[0] = t < 2 ? mine : theirs;
    codes[1] = t < 2 ? theirs : mine;
}

/// Decodes and writes sixteen columns of a row.
__device__ inline void write_sixteen(e4m3* to, const Table& table, const u32 (&codes)[2]) {
    u32 numbers[4];
    decode(table, codes[0], numbers[0], numbers[1]);
    decode(table, codes[1], numbers[2], numbers[3]);
    store_words(to, numbers);
}

template <int GROUP>
__device__ inline void run(const Params& p) {
    static_assert(GROUP == 64 || GROUP == 128, "a record has one scale for each row, or two");
    constexpr u32 RECORD = CODES + RECORD_ROWS * (RECORD_COLS / GROUP);
    u32 step = blockIdx.x, tile = blockIdx.y * 2 + threadIdx.x / RECORD_THREADS;
    u32 thread = threadIdx.x % RECORD_THREADS, lane = thread % WARP, warp = thread / WARP;
    const u8* record = p.records + (static_cast<u64>(tile) * p.steps + step) * RECORD;
    u64 pitch = static_cast<u64>(p.steps) * RECORD_COLS;
    e4m3* to = p.rows + (tile * RECORD_ROWS + warp * 16 + lane / 4) * pitch + step * RECORD_COLS + lane % 4 * 16;
    u32 words[2][4];
#pragma unroll
    for (u32 half = 0; half < 2; ++half) load_words<CONSTANT>(record + (half * RECORD_THREADS + thread) * 16, words[half]);
    // Products of an earlier launch may still read the rows.
    wait_for_earlier_launches();
    let_later_launches_begin();
    Table upper, lower;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        if (half == 0 || GROUP == 64) {
            const u8* scales = record + CODES + half * RECORD_ROWS + warp * 16 + lane / 4 * 2;
            tables_of(*reinterpret_cast<const u16*>(scales), upper, lower);
        }
        u32 codes[2];
        gather_sixteen(words[half][0], words[half][2], codes);
        write_sixteen(to + half * 64, upper, codes);
        gather_sixteen(words[half][1], words[half][3], codes);
        write_sixteen(to + half * 64 + 8 * pitch, lower, codes);
    }
}

}  // namespace fireq::decode_weight
