// Transposition of a rows × cols matrix of 32-bit values through tiles of 32 × 32.
#ifndef PITCH
#define PITCH 33
#endif

extern "C" __global__ void __launch_bounds__(256) transpose(const unsigned* in, unsigned* out, int rows, int cols) {
    __shared__ unsigned tile[32][PITCH];
    int x = threadIdx.x, y0 = threadIdx.y;
    for (int y = y0; y < 32; y += 8) {
        int r = blockIdx.y * 32 + y, c = blockIdx.x * 32 + x;
        if (r < rows && c < cols) tile[y][x] = in[r * cols + c];
    }
    __syncthreads();
    for (int y = y0; y < 32; y += 8) {
        int r = blockIdx.x * 32 + y, c = blockIdx.y * 32 + x;
        if (r < cols && c < rows) out[r * rows + c] = tile[x][y];
    }
}
