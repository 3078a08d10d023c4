// One instruction per thread: d[i] = body(a[i], b[i], c[i]).
typedef unsigned int u32;
typedef unsigned long long u64;

struct Params {
    const u64 *a, *b, *c;
    u64* d;
};

// `body` has its operands in %1, %2, %3, and leaves 64 bits in %0.
#define KERNEL64(name, body)                                                                         \
    extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Params p) {       \
        u32 i = blockIdx.x * 256 + threadIdx.x;                                                      \
        u64 d;                                                                                       \
        asm volatile("{\n" body "\n}" : "=l"(d) : "l"(p.a[i]), "l"(p.b[i]), "l"(p.c[i]) : "memory"); \
        p.d[i] = d;                                                                                  \
    }

// `body` has the lower halves of its operands in a, b, c, and leaves 32 bits in d; h and k have 16 bits, q is a predicate
// that ends up in bit 32.
#define KERNEL(name, body)                                                          \
    KERNEL64(name,                                                                  \
             ".reg .b32 a, b, c, d, e;\n.reg .b16 h, k;\n.reg .pred q, r;\n"        \
             "cvt.u32.u64 a, %1;\ncvt.u32.u64 b, %2;\ncvt.u32.u64 c, %3;\n"         \
             "mov.b32 d, 0;\nsetp.ne.u32 q, d, 0;\n" body                           \
             "\nselp.b32 e, 1, 0, q;\nmov.b64 %0, {d, e};")
