#pragma once
#include "tile/chunk.cuh"
#include "ptx/launch.cuh"
#include "ptx/math.cuh"

// Rows of a table by index, as f32: one thread for a chunk, one row of CTAs for a token. An index outside the table
// stops the launch.

namespace fireq::gather {

struct Params {
    const void* table;  // [rows, COLS]
    const i32* index;   // [tokens]
    float* out;         // [tokens, COLS]
    u32 rows;
};

template <typename T, int COLS, int THREADS, int CHUNK>
__device__ inline void run(const Params& p) {
    static_assert(COLS % CHUNK == 0, "a row is whole chunks");
    i64 token = blockIdx.x;
    int column = static_cast<int>(blockIdx.y * THREADS + threadIdx.x) * CHUNK;
    if (column >= COLS) return;
    wait_for_earlier_launches();
    let_later_launches_begin();
    u32 row = static_cast<u32>(p.index[token]);
    if (row >= p.rows) stop();
    float x[CHUNK];
    load_chunk<CONSTANT>(static_cast<const T*>(p.table) + static_cast<i64>(row) * COLS + column, x);
    store_chunk(p.out + token * COLS + column, x);
}

}  // namespace fireq::gather
