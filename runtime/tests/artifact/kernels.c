/* The kernels of the small model, written from the documented ABI: what the code generator emits for it, in C.
   args: the parts of the operands, then of the result; dims: T, P, L; [begin, end): a range of the launch's units. */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { D = 32, V = 4096, HEADS = 2, H = D / HEADS, CHANNELS = 4 };

#define KERNEL(name) \
    void name(float *const *args, const uint64_t *dims, uint64_t begin, uint64_t end, float *scratch)

KERNEL(gather_0) {
    const int32_t *index = (const int32_t *)args[1];
    for (uint64_t row = begin; row < end; row++)
        memcpy(args[2] + row * D, args[0] + (uint64_t)index[row] * D, D * sizeof(float));
}

KERNEL(gather_1) {
    gather_0(args, dims, begin, end, scratch);
}

KERNEL(kv_append_0) {
    memcpy(args[1] + (dims[1] + begin) * D, args[0] + begin * D, (end - begin) * D * sizeof(float));
}

KERNEL(attention_0) {
    for (uint64_t unit = begin; unit < end; unit++) {
        uint64_t token = unit / HEADS, first = unit % HEADS * H, keys = dims[1] + token + 1;
        const float *q = args[0] + token * D + first;
        float *out = args[3] + token * D + first, max = -INFINITY, total = 0;
        for (uint64_t key = 0; key < keys; key++) {
            scratch[key] = 0;
            for (int i = 0; i < H; i++) scratch[key] += q[i] * args[1][key * D + first + i] * 0.25f;
            max = fmaxf(max, scratch[key]);
        }
        memset(out, 0, H * sizeof(float));
        for (uint64_t key = 0; key < keys; key++) {
            float p = expf(scratch[key] - max);
            total += p;
            for (int i = 0; i < H; i++) out[i] += p * args[2][key * D + first + i];
        }
        for (int i = 0; i < H; i++) out[i] /= total;
    }
}

KERNEL(linear_0) {
    for (uint64_t n = begin * CHANNELS; n < end * CHANNELS && n < V; n++)
        for (uint64_t row = 0; row < dims[2]; row++) {
            float sum = 0;
            for (int i = 0; i < D; i++) sum += args[0][row * D + i] * args[1][n * D + i];
            args[2][row * V + n] = sum;
        }
}
