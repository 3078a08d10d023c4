#pragma once
#include "ptx/types.cuh"
#include "ptx/warp.cuh"

// A row in the registers of a CTA: chunk `c` of `CHUNK` neighbouring numbers lies with thread `c mod THREADS`.

namespace fireq {

template <int COLS_, int THREADS_, int CHUNK_>
struct RowTile {
    static constexpr int COLS = COLS_;
    static constexpr int THREADS = THREADS_;
    static constexpr int CHUNK = CHUNK_;
    static constexpr int CHUNKS = COLS / CHUNK;
    /// From one row of E4M3 codes to the next.
    static constexpr int PITCH = pitch(COLS);
    static constexpr int PER_THREAD = (CHUNKS + THREADS - 1) / THREADS;

    static_assert(COLS % CHUNK == 0, "a row is whole chunks");
    static_assert(THREADS % WARP == 0 && THREADS <= 1024, "CTAs are whole warps, at most 32");
    static_assert(PER_THREAD * CHUNK <= 64, "a thread's part of a row stays in registers");

    /// What one thread holds of a row.
    using Values = float[PER_THREAD][CHUNK];

    /// The first column of chunk `n` of this thread; `COLS` or beyond where it has none.
    static __device__ int column(int n) { return (n * THREADS + static_cast<int>(threadIdx.x)) * CHUNK; }

    static __device__ bool holds(int n) { return column(n) < COLS; }
};

}  // namespace fireq
