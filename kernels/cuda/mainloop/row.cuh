#pragma once
#include "tile/chunk.cuh"
#include "tile/reduce.cuh"
#include "tile/row.cuh"

// Loops over a row that a CTA holds: each number is read once and stays in registers.

namespace fireq {

/// Loads a row; what a thread does not hold is 0.
template <typename Row, bool OF_CONSTANT = false, typename T>
__device__ inline void load_row(const T* row, typename Row::Values& x) {
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
        if (Row::holds(n)) {
            load_chunk<OF_CONSTANT>(row + Row::column(n), x[n]);
        } else {
#pragma unroll
            for (int i = 0; i < Row::CHUNK; ++i) x[n][i] = 0.0f;
        }
    }
}

/// Σx² in f64: each square is exact, and only the order of the sum is this loop's own.
template <typename Row>
__device__ inline double sum_of_squares(const typename Row::Values& x) {
    __shared__ double shared[Row::THREADS / WARP];
    double sum = 0.0;
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
#pragma unroll
        for (int i = 0; i < Row::CHUNK; ++i) {
            double wide = static_cast<double>(x[n][i]);
            sum = multiply_add(wide, wide, sum);
        }
    }
    return reduce_cta<Sum, Row::THREADS>(sum, shared);
}

/// The largest magnitude of a row.
template <typename Row>
__device__ inline float largest_magnitude(const typename Row::Values& x) {
    __shared__ float shared[Row::THREADS / WARP];
    float most = 0.0f;
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
#pragma unroll
        for (int i = 0; i < Row::CHUNK; ++i) most = larger(most, magnitude(x[n][i]));
    }
    return reduce_cta<Largest, Row::THREADS>(most, shared);
}

/// `x · factor · weight`, the factor given as the sum of two floats: kept to 46 bits before it is rounded, which is
/// what the contract's f64 product rounds to but for one number in a million.
__device__ inline float scaled(float x, float factor, float factor_rest, float weight) {
    float once = x * factor;
    float once_rest = multiply_add(x, factor_rest, multiply_add(x, factor, -once));
    float twice = once * weight;
    return twice + multiply_add(once_rest, weight, multiply_add(once, weight, -twice));
}

/// Replaces a row by its RMS norm, `x / sqrt(mean(x²) + eps) · w`. Weights are asked for before the row: no launch writes them.
template <typename Row>
__device__ inline void normalize(typename Row::Values& x, const typename Row::Values& w, float eps) {
    double mean = sum_of_squares<Row>(x) / Row::COLS;
    double root = 1.0 / sqrt(mean + static_cast<double>(eps));
    float factor = static_cast<float>(root);
    float factor_rest = static_cast<float>(root - static_cast<double>(factor));
#pragma unroll
    for (int n = 0; n < Row::PER_THREAD; ++n) {
#pragma unroll
        for (int i = 0; i < Row::CHUNK; ++i) x[n][i] = scaled(x[n][i], factor, factor_rest, w[n][i]);
    }
}

}  // namespace fireq
