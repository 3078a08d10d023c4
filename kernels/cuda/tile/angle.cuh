#pragma once
#include "ptx/types.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"

// Cosine and sine of large angles without the library's table walk, which takes local memory.

namespace fireq {

/// Both to f64 accuracy for |angle| up to 2³⁰, rounded once. π/2 is taken off as the sum of two numbers; what is left is
/// at most π/4, where Taylor's series to the 17th power are exact to 10⁻¹⁷.
__device__ inline void cosine_and_sine(float angle, float& cosine, float& sine) {
    constexpr double TWO_OVER_PI = 0.63661977236758134308;
    constexpr double HALF_PI = 1.57079632679489655800;
    constexpr double HALF_PI_REST = 6.12323399573676603587e-17;
    double wide = static_cast<double>(angle);
    double turns = rint(wide * TWO_OVER_PI);
    double x = multiply_add(-turns, HALF_PI_REST, multiply_add(-turns, HALF_PI, wide));
    double y = x * x;
    double c = 1.0, s = 1.0;
#pragma unroll
    for (int n = 16; n >= 2; n -= 2) {
        c = multiply_add(-y * (1.0 / (n * (n - 1))), c, 1.0);
        s = multiply_add(-y * (1.0 / (n * (n + 1))), s, 1.0);
    }
    s *= x;
    int quarter = static_cast<int>(turns) & 3;
    double rotated_c = quarter & 1 ? s : c, rotated_s = quarter & 1 ? c : s;
    cosine = static_cast<float>(quarter == 1 || quarter == 2 ? -rotated_c : rotated_c);
    sine = static_cast<float>(quarter >= 2 ? -rotated_s : rotated_s);
}

}  // namespace fireq
