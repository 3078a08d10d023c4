#pragma once
#include "quant/e4m3.cuh"
#include "mainloop/row.cuh"

// What becomes of a row that a CTA holds.

namespace fireq {

/// E4M3 codes of the row, and its scale.
template <typename Row>
__device__ inline void quantize_row(const typename Row::Values& x, e4m3* codes, float* scale) {
    float s = e4m3_scale(largest_magnitude<Row>(x));
    Divisor by = divisor(s);
    if (threadIdx.x == 0) *scale = s;
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
        if (Row::holds(n)) store_e4m3(codes + Row::column(n), x[n], by);
    }
}

/// The row as f32.
template <typename Row>
__device__ inline void store_row(const typename Row::Values& x, float* out) {
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
        if (Row::holds(n)) store_chunk(out + Row::column(n), x[n]);
    }
}

}  // namespace fireq
