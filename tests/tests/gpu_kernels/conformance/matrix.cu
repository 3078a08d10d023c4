// Matrices spread over the registers of one warp: out = what the lanes hold or have stored.
typedef unsigned int u32;

struct Params {
    const u32 *a, *b, *c;
    u32* out;
};

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// a: 32 rows of 16 bytes; b: the row whose address each lane gives. out: four registers of each lane.
#define LOAD(name, form)                                                                                              \
    extern "C" __global__ void __launch_bounds__(32) name(const __grid_constant__ Params p) {                         \
        __shared__ alignas(16) u32 tile[128];                                                                         \
        for (int i = 0; i < 4; i++) tile[threadIdx.x + 32 * i] = p.a[threadIdx.x + 32 * i];                           \
        __syncwarp();                                                                                                 \
        u32 d[4];                                                                                                     \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" form ".shared.b16 {%0, %1, %2, %3}, [%4];"                       \
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(shared(&tile[4 * p.b[threadIdx.x]])) : "memory"); \
        for (int i = 0; i < 4; i++) p.out[4 * threadIdx.x + i] = d[i];                                                \
    }

// a: four registers of each lane; b: the row whose address each lane gives. out: 32 rows of 16 bytes.
#define STORE(name, form)                                                                                          \
    extern "C" __global__ void __launch_bounds__(32) name(const __grid_constant__ Params p) {                      \
        __shared__ alignas(16) u32 tile[128];                                                                      \
        const u32* s = p.a + 4 * threadIdx.x;                                                                      \
        asm volatile("stmatrix.sync.aligned.m8n8.x4" form ".shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(             \
                         shared(&tile[4 * p.b[threadIdx.x]])), "r"(s[0]), "r"(s[1]), "r"(s[2]), "r"(s[3]) : "memory"); \
        __syncwarp();                                                                                              \
        for (int i = 0; i < 4; i++) p.out[threadIdx.x + 32 * i] = tile[threadIdx.x + 32 * i];                      \
    }

LOAD(load_matrix, "")
LOAD(load_matrix_transposed, ".trans")
STORE(store_matrix, "")
STORE(store_matrix_transposed, ".trans")

// a, b, c and out: the registers of each lane, four, two, four and four.
#define MULTIPLY(name, form)                                                                                  \
    extern "C" __global__ void __launch_bounds__(32) name(const __grid_constant__ Params p) {                 \
        const u32 *a = p.a + 4 * threadIdx.x, *b = p.b + 2 * threadIdx.x, *c = p.c + 4 * threadIdx.x;         \
        u32 d[4];                                                                                             \
        asm volatile("{\n.reg .f32 d<4>, c<4>;\n"                                                             \
                     "mov.b32 c0, %10;\nmov.b32 c1, %11;\nmov.b32 c2, %12;\nmov.b32 c3, %13;\n"               \
                     "mma.sync.aligned." form " {d0, d1, d2, d3}, {%4, %5, %6, %7}, {%8, %9}, {c0, c1, c2, c3};\n" \
                     "mov.b32 %0, d0;\nmov.b32 %1, d1;\nmov.b32 %2, d2;\nmov.b32 %3, d3;\n}"                  \
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])                                         \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), \
                       "r"(c[2]), "r"(c[3]));                                                                 \
        for (int i = 0; i < 4; i++) p.out[4 * threadIdx.x + i] = d[i];                                        \
    }

MULTIPLY(multiply_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
MULTIPLY(multiply_e4m3, "m16n8k32.row.col.f32.e4m3.e4m3.f32")
