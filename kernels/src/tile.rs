//! Register tiles of the CPU's linear layers.

/// Elements of the vectors that CPU kernels are written in; a target takes as many registers for one as it needs.
const LANES: usize = 16;

/// The vector registers of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorRegisters {
    /// How many there are.
    pub count: usize,
    /// Numbers of f32 in one.
    pub lanes: usize,
}

impl VectorRegisters {
    /// AVX-512: 32 registers of 512 bits.
    pub const AVX512: Self = VectorRegisters { count: 32, lanes: 16 };
    /// AVX and AVX2: 16 registers of 256 bits.
    pub const AVX2: Self = VectorRegisters { count: 16, lanes: 8 };
    /// SSE2: 16 registers of 128 bits.
    pub const SSE2: Self = VectorRegisters { count: 16, lanes: 4 };
    /// NEON on aarch64: 32 registers of 128 bits.
    pub const NEON: Self = VectorRegisters { count: 32, lanes: 4 };

    /// The registers that code for a CPU with these features uses; features as `is_x86_feature_detected!` spells them.
    pub fn of(arch: &str, features: &[String]) -> Self {
        let has = |name: &str| features.iter().any(|feature| feature == name);
        match arch {
            "aarch64" => Self::NEON,
            _ if has("avx512f") => Self::AVX512,
            _ if has("avx2") => Self::AVX2,
            _ => Self::SSE2,
        }
    }
}

/// Bytes of activations that are worked on together.
const PACKED: usize = 512 << 10;
/// Tokens that weights are decoded once for: decoding takes a twentieth of the time then.
const TOGETHER: usize = 96;
/// Bytes of scratch of a thread that a linear kernel with rows of `row_bytes` has room in: activations, weights, sums.
pub const fn linear_scratch(row_bytes: usize) -> usize {
    let rows = if row_bytes > PACKED { row_bytes } else { PACKED };
    rows + (64 << 10)
}

/// Sums that a linear kernel keeps in registers: `rows` output channels × `tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTile {
    /// Output channels, each of which decodes its weights once for all tokens of the tile.
    pub rows: usize,
    /// Tokens.
    pub tokens: usize,
}

impl CpuTile {
    /// The largest tile, of at most `most_rows` channels, whose sums leave half of the registers to its operands. Both
    /// sides are powers of two and as equal as can be, since a step loads `rows + tokens` operands for
    /// `rows · tokens` sums; channels get the odd factor, because tokens may be few.
    pub fn prefill(registers: VectorRegisters, most_rows: usize) -> Self {
        let sums = (registers.count * registers.lanes / LANES / 2).max(1);
        let power = sums.ilog2();
        let rows = (1 << power.div_ceil(2)).min(most_rows.max(1));
        CpuTile { rows, tokens: (1 << power) / rows }
    }

    /// The tile of `rows` channels whose sums fill three quarters of the registers, one register each: its operands are in the
    /// level-1 cache or take one register after the other.
    pub fn of_registers(registers: VectorRegisters, rows: usize) -> Self {
        CpuTile { rows, tokens: (registers.count * 3 / 4 / rows).max(1) }
    }

    /// Tokens that are worked on together, whole tiles of them if possible: their rows of `row_bytes` stay in half
    /// a MiB, which is less than a level-2 cache.
    pub fn together(&self, row_bytes: usize) -> usize {
        let fit = (PACKED / row_bytes.max(1)).min(TOGETHER);
        if fit >= self.tokens { fit / self.tokens * self.tokens } else { fit.max(1) }
    }

    /// One token, whose operand is shared by all `rows` channels: decoding, and what a prefill leaves over.
    pub const fn decode(rows: usize) -> Self {
        CpuTile { rows, tokens: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_follow_from_the_registers() {
        let tile = |registers| CpuTile::prefill(registers, 4);
        assert_eq!(tile(VectorRegisters::AVX512), CpuTile { rows: 4, tokens: 4 });
        assert_eq!(tile(VectorRegisters::AVX2), CpuTile { rows: 2, tokens: 2 });
        assert_eq!(tile(VectorRegisters::NEON), CpuTile { rows: 2, tokens: 2 });
        assert_eq!(tile(VectorRegisters::SSE2), CpuTile { rows: 2, tokens: 1 });
        assert_eq!(CpuTile::prefill(VectorRegisters::AVX512, 2), CpuTile { rows: 2, tokens: 8 });
    }

    #[test]
    fn sums_never_take_more_than_half_of_the_registers() {
        for count in [1, 8, 16, 32, 64] {
            for lanes in [1, 2, 4, 8, 16] {
                let tile = CpuTile::prefill(VectorRegisters { count, lanes }, 4);
                let taken = tile.rows * tile.tokens * LANES / lanes;
                assert!(
                    taken <= count / 2 || (tile.rows, tile.tokens) == (1, 1),
                    "{count} of {lanes}: {tile:?}"
                );
            }
        }
    }

    #[test]
    fn blocks_of_tokens_are_whole_tiles_and_fit_the_scratch() {
        for (registers, tokens) in [(VectorRegisters::AVX512, 6), (VectorRegisters::AVX2, 3)] {
            let tile = CpuTile::of_registers(registers, 4);
            assert_eq!(tile, CpuTile { rows: 4, tokens });
            assert_eq!(tile.together(4096), 96);
            for row_bytes in [1, 64, 8192, 57_344, 200_000, 1 << 20] {
                let together = tile.together(row_bytes);
                assert!(together.is_multiple_of(tokens) || together < tokens, "{row_bytes}: {together}");
                let sums = 4 * together * 4 * registers.lanes;
                let weights = 4 * 2 * registers.lanes * 128;
                let taken = together * row_bytes + sums + weights;
                assert!(taken <= linear_scratch(row_bytes), "{row_bytes}: {taken}");
            }
        }
    }

    #[test]
    fn features_name_the_registers() {
        let of = |features: &[&str]| {
            VectorRegisters::of("x86_64", &features.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), VectorRegisters::SSE2);
        assert_eq!(of(&["avx", "avx2", "fma"]), VectorRegisters::AVX2);
        assert_eq!(of(&["avx2", "avx512f"]), VectorRegisters::AVX512);
        assert_eq!(VectorRegisters::of("aarch64", &[]), VectorRegisters::NEON);
    }
}
