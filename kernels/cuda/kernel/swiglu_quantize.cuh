#pragma once
#include "ptx/launch.cuh"
#include "epilogue/row.cuh"

// quantize(body(gate, up)) with gate and up the halves of a row, as the merged projection leaves them: one CTA for a
// row, which is read once and written once. `Body` is the element-wise expression, silu(gate)·up.

namespace fireq::swiglu_quantize {

struct Params {
    const float* x;  // [rows, 2·COLS]: gate, then up
    e4m3* codes;     // [rows, PITCH]
    float* scales;   // [rows]
};

template <typename Row, typename Body>
__device__ inline void run(const Params& p) {
    i64 row = blockIdx.x;
    const float* gate = p.x + row * 2 * Row::COLS;
    typename Row::Values x;
    wait_for_earlier_launches();
    let_later_launches_begin();
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
#pragma unroll
        for (int i = 0; i < Row::CHUNK; ++i) x[n][i] = 0.0f;
        if (!Row::holds(n)) continue;
        float up[Row::CHUNK];
        load_chunk(gate + Row::column(n), x[n]);
        load_chunk(gate + Row::COLS + Row::column(n), up);
#pragma unroll
        for (int i = 0; i < Row::CHUNK; ++i) x[n][i] = Body::apply(x[n][i], up[i]);
    }
    quantize_row<Row>(x, p.codes + row * Row::PITCH, p.scales + row);
}

}  // namespace fireq::swiglu_quantize
