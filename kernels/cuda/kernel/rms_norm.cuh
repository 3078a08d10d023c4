#pragma once
#include "ptx/launch.cuh"
#include "epilogue/row.cuh"

// rms_norm(x, weight) over runs of COLS channels: one CTA for a run. Rows may lie `stride` apart, as the slices of a
// merged projection do; each has `runs` runs.

namespace fireq::rms_norm {

struct Params {
    const float* x;      // [rows, stride]
    const void* weight;  // [COLS]
    float* out;          // [rows, runs·COLS]
    u32 stride;
    u32 runs;
    float eps;
};

template <typename Row, typename Weight>
__device__ inline void run(const Params& p) {
    i64 unit = blockIdx.x;
    i64 row = unit / p.runs;
    typename Row::Values x, w;
    load_row<Row, CONSTANT>(static_cast<const Weight*>(p.weight), w);
    wait_for_earlier_launches();
    let_later_launches_begin();
    load_row<Row>(p.x + row * p.stride + (unit - row * p.runs) * Row::COLS, x);
    normalize<Row>(x, w, p.eps);
    store_row<Row>(x, p.out + unit * Row::COLS);
}

}  // namespace fireq::rms_norm
