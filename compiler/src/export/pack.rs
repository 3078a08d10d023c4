//! INT4 weights as compressed-tensors packs them (`pack-quantized`), and how far what others decode is from what fireq's
//! kernels do.

use fireq_ir::DType;
use fireq_ir::e4m3;
use fireq_ir::interp::{Data, InterpError, Tensor};
use fireq_ir::plan::{Storage, pack_tensor};
use fireq_ir::quant::Quantized;
use serde::Serialize;

use super::dense::narrowed;

/// Rows of a weight as a checkpoint has them.
pub(super) struct PackedRows {
    /// `weight_packed`: codes plus 8, eight to a little-endian i32, the first in the lowest bits.
    pub codes: Vec<u8>,
    /// `weight_scale`: a scale for each group, of either sign, as its dtype rounds it.
    pub scales: Vec<f32>,
}

/// Packs rows in groups of `group`, which divides the groups that they have and the number of columns.
///
/// Scales keep their sign: that of a group decides which of its extremes is −8, and no code is left to say the other.
pub(super) fn pack(tensor: &Tensor, group: usize, dtype: DType) -> Result<PackedRows, InterpError> {
    let not_codes = || InterpError::Op { op: "export", reason: format!("{} is no INT4 weight", tensor.ty) };
    let Data::Quant(q) = &tensor.data else { return Err(not_codes()) };
    let mut codes = pack_tensor(tensor, Storage::Plain)?.swap_remove(0).1.into_owned();
    // Two's complement and an offset of 8 differ in the highest bit.
    for pair in &mut codes {
        *pair ^= 0x88;
    }
    let scales = (0..q.rows()).flat_map(|row| scales(q, row, group));
    Ok(PackedRows { codes, scales: scales.map(|scale| narrowed(scale, dtype)).collect() })
}

/// The scales of a row, each for `group` columns.
fn scales(q: &Quantized, row: usize, group: usize) -> impl Iterator<Item = f32> {
    let (inner, outer) = (q.format.scheme.0[0], q.row_factor(row));
    let (count, extent) = (inner.count(q.cols), inner.extent(q.cols));
    (0..q.cols).step_by(group).map(move |col| q.scales[0][row * count + col / extent] * outer)
}

/// Sums of squares over weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Of what fireq's kernels decode.
    #[serde(skip)]
    pub(super) numbers: f64,
    /// Of what the exported numbers differ by.
    #[serde(skip)]
    pub(super) exported: f64,
    /// Of what numbers differ by that vLLM's kernel for INT4 weights and FP8 inputs decodes.
    #[serde(skip)]
    pub(super) vllm: f64,
}

impl Difference {
    /// Adds what rows differ by that were packed in groups of `group`; `fp8` where vLLM's kernel takes inputs in E4M3.
    pub(super) fn of_packed(q: &Quantized, scales: &[f32], group: usize, fp8: bool) -> Self {
        let mut sums = Difference::default();
        for (row, scales) in scales.chunks(q.cols / group).enumerate() {
            let exact = q.dequantize_row(row);
            let (channel, fp8_scales) = vllm_scales(scales);
            let codes = &q.codes[row * q.cols..][..q.cols];
            for (at, (number, code)) in exact.iter().zip(codes).enumerate() {
                let code = f32::from(*code);
                let exported = code * scales[at / group];
                let vllm = if fp8 { channel * e4m3::round(code * fp8_scales[at / group]) } else { exported };
                sums.add(*number, exported, vllm);
            }
        }
        sums
    }

    /// Adds a number, and what others have instead of it.
    pub(super) fn add(&mut self, number: f32, exported: f32, vllm: f32) {
        let square = |other: f32| (f64::from(number) - f64::from(other)).powi(2);
        self.numbers += f64::from(number).powi(2);
        self.exported += square(exported);
        self.vllm += square(vllm);
    }

    /// The exported numbers' relative error, root mean square.
    pub fn of_exported(&self) -> f64 {
        relative(self.exported, self.numbers)
    }

    /// That of what vLLM's kernel decodes.
    pub fn of_vllm(&self) -> f64 {
        relative(self.vllm, self.numbers)
    }
}

fn relative(difference: f64, numbers: f64) -> f64 {
    if numbers > 0.0 { (difference / numbers).sqrt() } else { 0.0 }
}

impl std::ops::AddAssign for Difference {
    fn add_assign(&mut self, other: Self) {
        self.numbers += other.numbers;
        self.exported += other.exported;
        self.vllm += other.vllm;
    }
}

/// What vLLM makes of a row's scales when it loads them for its kernel for INT4 weights and FP8 inputs: rounded to E4M3 with
/// a factor for the row, as it rounds a token, and an eighth of that, so that no product with a code overflows.
fn vllm_scales(scales: &[f32]) -> (f32, Vec<f32>) {
    /// The least factor that its quantizer of tokens takes.
    const LEAST: f32 = 1.0 / (448.0 * 512.0);
    let largest = scales.iter().fold(0.0f32, |most, scale| most.max(scale.abs()));
    let factor = (largest / e4m3::MAX).max(LEAST);
    let rounded = scales.iter().map(|scale| e4m3::round(e4m3::round(scale / factor) / 8.0));
    (factor * 8.0, rounded.collect())
}

#[cfg(test)]
mod tests {
    use fireq_ir::{Fit, Format, Shape, Type};

    use super::*;

    /// A weight with signed scales: extremes of both signs.
    fn weight(rows: usize, cols: usize, group: usize) -> Tensor {
        let format = Format::weight(group);
        // Groups of several sizes, so that most scales are no powers of two.
        let value = |i: usize| ((i * i + 3 * i) as f32 * 0.7).sin() * (0.5 + (i / group % 7) as f32 * 0.11);
        let values: Vec<f32> = (0..rows * cols).map(value).collect();
        let ty = Type::plain(DType::F32, Shape::matrix(rows, cols)).with_format(&format);
        Tensor { ty, data: Data::Quant(Quantized::from_rows(&values, cols, &format, Fit::Signed)) }
    }

    fn codes(tensor: &Tensor) -> &Quantized {
        let Data::Quant(q) = &tensor.data else { panic!() };
        q
    }

    #[test]
    fn codes_and_scales_come_back_from_words_of_eight() {
        let tensor = weight(3, 160, 64);
        let q = codes(&tensor);
        let packed = pack(&tensor, 32, DType::F32).unwrap();
        assert_eq!((packed.codes.len(), packed.scales.len()), (3 * 160 / 2, 3 * 5));
        assert!(packed.scales.iter().any(|s| *s < 0.0) && packed.scales.iter().any(|s| *s > 0.0));
        let words: Vec<i32> =
            packed.codes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect();
        for (n, code) in q.codes.iter().enumerate() {
            assert_eq!((words[n / 8] >> (n % 8 * 4) & 15) - 8, i32::from(*code), "{n}");
            let (row, col) = (n / 160, n % 160);
            let scale = q.scales[0][row * 3 + col / 64] * q.scales[1][row];
            assert_eq!(packed.scales[row * 5 + col / 32], scale, "{n}");
        }
    }

    #[test]
    fn all_that_exported_numbers_lack_is_the_rounding_of_products() {
        let tensor = weight(4, 256, 128);
        let (q, packed) = (codes(&tensor), pack(&tensor, 128, DType::F32).unwrap());
        let found = Difference::of_packed(q, &packed.scales, 128, true);
        assert!((0.005..0.03).contains(&found.of_exported()), "{found:?}");
        assert!((0.005..0.06).contains(&found.of_vllm()), "{found:?}");
        // Where products are exact, there is nothing.
        let mut exact = q.clone();
        exact.codes.iter_mut().for_each(|code| *code = code.signum() * 4);
        let exact = Difference::of_packed(&exact, &packed.scales, 128, false);
        assert!(exact.of_exported() < 1e-7, "{exact:?}");
    }

    #[test]
    fn vllm_gets_scales_back_whose_largest_is_as_it_scales_them() {
        let scales = [56.0, -13.0, 0.875, -0.015625].map(|s: f32| s * 0.25);
        assert_eq!(vllm_scales(&scales), (0.25, vec![56.0, -13.0, 0.875, -0.015625]));
        assert_eq!(vllm_scales(&[0.0]).1, [0.0]);
    }
}
