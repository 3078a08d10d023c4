#pragma once
#include "ptx/types.cuh"
#include "ptx/memory.cuh"
#include "ptx/convert.cuh"
#include "ptx/math.cuh"
#include "tile/chunk.cuh"

// What becomes of a product's sums, whichever mainloop has them: in their scales, with what is added, in the output's format;
// or two and two of them made one. Threads read and write 16 bytes at a time, where rows allow it.

namespace fireq {

/// Where outputs come from and go to.
struct LinearOutput {
    const float* token_scales;    // [tokens]
    const float* channel_scales;  // one for each row of the weight
    const void* addend;           // what the epilogue adds
    void* out;                    // [tokens, channels]
    u32 tokens;
    u32 channels;
};

/// Neighbouring floats of `N` that one load has.
__device__ constexpr int at_once(int n) { return n < 4 ? n : 4; }

/// One, two or four neighbouring floats from an address aligned to all of them.
template <int N>
__device__ inline void read_neighbours(const float* from, float* to) {
    if constexpr (N == 4) {
        float4 four = *reinterpret_cast<const float4*>(from);
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else if constexpr (N == 2) {
        float2 two = *reinterpret_cast<const float2*>(from);
        to[0] = two.x, to[1] = two.y;
    } else {
        to[0] = *from;
    }
}

/// Nothing is added. `load` of an addend takes neighbouring channels of a token, `at` their place in the output.
struct Nothing {
    static constexpr bool OF_CHANNELS = false, OF_OUTPUTS = false;

    template <int N>
    static __device__ void load(const void*, u64, u32, float (&)[N]) {}
};

/// A vector of channels in format `T`.
template <typename T>
struct BiasOf {
    static constexpr bool OF_CHANNELS = true, OF_OUTPUTS = false;

    template <int N>
    static __device__ void load(const void* bias, u64, u32 channel, float (&to)[N]) {
        load_chunk<CONSTANT>(static_cast<const T*>(bias) + channel, to);
    }
};

using Bias = BiasOf<float>;

/// A matrix of the output's shape. Ordinary loads stay in front of a barrier that follows; those of read-only memory the
/// assembler moves across it, next to their use.
struct Residual {
    static constexpr bool OF_CHANNELS = false, OF_OUTPUTS = true;

    template <int N>
    static __device__ void load(const void* residual, u64 at, u32, float (&to)[N]) {
        const float* from = static_cast<const float*>(residual) + at;
#pragma unroll
        for (int n = 0; n < N; n += at_once(N)) read_neighbours<at_once(N)>(from + n, to + n);
    }
};

/// Outputs of format `Out`, a channel of the weight each. Their number is a multiple of those that a thread writes at once:
/// as many as 16 bytes hold, or fewer where rows do not begin at such addresses.
template <typename Addend_, typename Out, int AT_ONCE_ = 16 / sizeof(Out)>
struct Plain {
    using Addend = Addend_;
    /// Channels of the weight that make an output, and neighbouring outputs that a thread writes.
    static constexpr int OPERANDS = 1, AT_ONCE = AT_ONCE_;

    /// Outputs of a tile.
    template <typename Tile>
    static __device__ constexpr u32 channels() {
        return Tile::CHANNELS;
    }

    /// From the weight's rows of the first 64 channels of a tile to those of the next.
    static __device__ u32 rows_apart(u32) { return 64; }

    static __device__ void write(void* out, u64 at, float (&y)[1][AT_ONCE], const float (&added)[AT_ONCE]) {
        if constexpr (Addend::OF_CHANNELS || Addend::OF_OUTPUTS) {
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) y[0][i] += added[i];
        }
        store_chunk(static_cast<Out*>(out) + at, y[0]);
    }
};

/// Outputs that two channels of the weight make by `Body`: one of its first half, and the one as far into the second. The first
/// warpgroup has 64 of those, the second 64 of these.
template <typename Body>
struct Gated {
    using Addend = Nothing;
    static constexpr int OPERANDS = 2, AT_ONCE = 4;

    template <typename Tile>
    static __device__ constexpr u32 channels() {
        static_assert(Tile::WARPGROUPS == 2 && Tile::CHANNELS == 128, "one warpgroup has gates, one what they gate");
        return 64;
    }

    static __device__ u32 rows_apart(u32 channels) { return channels; }

    static __device__ void write(void* out, u64 at, float (&y)[2][AT_ONCE], const float (&)[AT_ONCE]) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) y[0][i] = Body::apply(y[0][i], y[1][i]);
        store_chunk(static_cast<float*>(out) + at, y[0]);
    }
};

/// A number for each channel that neighbouring outputs are made of.
template <typename Epilogue>
using Channels = float[Epilogue::OPERANDS][Epilogue::AT_ONCE];

/// The scales of the channels of outputs from `channel` on.
template <typename Epilogue>
__device__ inline void load_scales(const LinearOutput& output, u32 channel, Channels<Epilogue>& scales) {
#pragma unroll
    for (int n = 0; n < Epilogue::OPERANDS; ++n) {
        load_chunk<CONSTANT>(output.channel_scales + n * output.channels + channel, scales[n]);
    }
}

/// Writes neighbouring outputs of a token.
template <typename Epilogue>
__device__ inline void write_outputs(const LinearOutput& output, u64 at, Channels<Epilogue>& sums,
                                     const Channels<Epilogue>& scales, float token_scale,
                                     const float (&added)[Epilogue::AT_ONCE]) {
#pragma unroll
    for (int n = 0; n < Epilogue::OPERANDS; ++n) {
#pragma unroll
        for (int i = 0; i < Epilogue::AT_ONCE; ++i) sums[n][i] = sums[n][i] * scales[n][i] * token_scale;
    }
    Epilogue::write(output.out, at, sums, added);
}

}  // namespace fireq
