#pragma once
#include "ptx/launch.cuh"
#include "epilogue/row.cuh"

// quantize(x) to E4M3 per row: one CTA for a row, which is read once and written once.

namespace fireq::quantize {

struct Params {
    const float* x;  // [rows, COLS]
    e4m3* codes;     // [rows, PITCH]
    float* scales;   // [rows]
};

template <typename Row>
__device__ inline void run(const Params& p) {
    i64 row = blockIdx.x;
    wait_for_earlier_launches();
    let_later_launches_begin();
    typename Row::Values x;
    load_row<Row>(p.x + row * Row::COLS, x);
    quantize_row<Row>(x, p.codes + row * Row::PITCH, p.scales + row);
}

}  // namespace fireq::quantize
