#pragma once
#include "ptx/launch.cuh"
#include "epilogue/row.cuh"

// quantize(rms_norm(x, weight)): one CTA for a row, which is read once and written once.

namespace fireq::norm_quantize {

struct Params {
    const float* x;      // [rows, COLS]
    const void* weight;  // [COLS]
    e4m3* codes;         // [rows, PITCH]
    float* scales;       // [rows]
    float eps;
};

template <typename Row, typename Weight>
__device__ inline void run(const Params& p) {
    i64 row = blockIdx.x;
    typename Row::Values x, w;
    load_row<Row, CONSTANT>(static_cast<const Weight*>(p.weight), w);
    wait_for_earlier_launches();
    let_later_launches_begin();
    load_row<Row>(p.x + row * Row::COLS, x);
    normalize<Row>(x, w, p.eps);
    quantize_row<Row>(x, p.codes + row * Row::PITCH, p.scales + row);
}

}  // namespace fireq::norm_quantize
