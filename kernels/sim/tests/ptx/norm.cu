// rms_norm of rows of bf16, quantized to E4M3 with one scale per row. One CTA per row, 8 values per load.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

__device__ __forceinline__ float low(u32 x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float high(u32 x) { return __uint_as_float(x & 0xffff0000u); }

__device__ __forceinline__ u32 quantize4(float a, float b, float c, float d) {
    u16 lo, hi;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(lo) : "f"(b), "f"(a));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(hi) : "f"(d), "f"(c));
    return lo | (u32)hi << 16;
}

template <class F> __device__ __forceinline__ float reduce(float x, float* part, F f) {
    for (int o = 16; o > 0; o >>= 1) x = f(x, __shfl_xor_sync(0xffffffffu, x, o));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (int i = 1; i < 4; i++) x = f(x, part[i]);
    return x;
}

extern "C" __global__ void __launch_bounds__(128) rms_norm(const uint4* x, const float* weight, uint2* q, float* scale, int n) {
    __shared__ float sums[4], tops[4];
    const uint4* row = x + (long long)blockIdx.x * (n / 8);
    float sum = 0.0f, top = 0.0f;
#ifdef OFF_BY_ONE
    for (int i = threadIdx.x; i <= n / 8; i += 128) {
#else
    for (int i = threadIdx.x; i < n / 8; i += 128) {
#endif
        uint4 v = row[i];
        u32 p[4] = {v.x, v.y, v.z, v.w};
        for (int j = 0; j < 4; j++) {
            float a = low(p[j]), b = high(p[j]);
            sum += a * a + b * b;
            top = fmaxf(top, fmaxf(fabsf(a * weight[i * 8 + 2 * j]), fabsf(b * weight[i * 8 + 2 * j + 1])));
        }
    }
    sum = reduce(sum, sums, [](float a, float b) { return a + b; });
    top = reduce(top, tops, [](float a, float b) { return fmaxf(a, b); });
    float inv = rsqrtf(sum / n + 1e-5f), s = top * inv / 448.0f;
    if (threadIdx.x == 0) scale[blockIdx.x] = s;
    float r = inv / s;
    for (int i = threadIdx.x; i < n / 8; i += 128) {
        uint4 v = row[i];
        const float* w = weight + i * 8;
        q[(long long)blockIdx.x * (n / 8) + i] =
            make_uint2(quantize4(low(v.x) * r * w[0], high(v.x) * r * w[1], low(v.y) * r * w[2], high(v.y) * r * w[3]),
                       quantize4(low(v.z) * r * w[4], high(v.z) * r * w[5], low(v.w) * r * w[6], high(v.w) * r * w[7]));
    }
}
