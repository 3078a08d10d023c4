//! Weights packed the plain way, one code after another, and what they stand for: written from descriptions of the formats, and
//! sharing nothing with what reads them.

use safetensors::Dtype;

use crate::tiny::{Stored, Tensors};

/// A weight of codes, by row and channel, under scales and zero points, by row and group.
pub struct Weight {
    pub bits: u32,
    pub codes: Vec<Vec<u32>>,
    pub zeros: Vec<Vec<u32>>,
    pub scales: Vec<Vec<f32>>,
    /// The group of each channel.
    pub groups: Vec<usize>,
}

impl Weight {
    /// Codes, zero points and scales of no pattern; `middle` puts every zero point at half of what codes reach, and `mixed`
    /// channels of a group all over the place.
    pub fn new(
        seed: u32,
        (rows, cols): (usize, usize),
        bits: u32,
        size: usize,
        middle: bool,
        mixed: bool,
    ) -> Self {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let count = cols.div_ceil(size);
        let top = 1 << bits;
        let codes = (0..rows).map(|_| (0..cols).map(|_| next(top)).collect()).collect();
        let zero = |next: u32| if middle { top / 2 } else { next };
        let zeros = (0..rows).map(|_| (0..count).map(|_| zero(next(top))).collect()).collect();
        let scales =
            (0..rows).map(|_| (0..count).map(|_| (1 + next(60)) as f32 / 1024.0).collect()).collect();
        let mut groups: Vec<usize> = (0..cols).map(|k| k / size).collect();
        if mixed {
            (1..cols).rev().for_each(|k| groups.swap(k, next(k as u32 + 1) as usize));
        }
        Weight { bits, codes, zeros, scales, groups }
    }

    /// What it stands for.
    pub fn numbers(&self) -> Vec<f32> {
        let rows = self.codes.iter().zip(self.zeros.iter().zip(&self.scales));
        let number =
            |code: u32, zero: u32, scale: f32| (f64::from(code) - f64::from(zero)) * f64::from(scale);
        rows.flat_map(|(codes, (zeros, scales))| {
            codes.iter().zip(&self.groups).map(|(code, g)| number(*code, zeros[*g], scales[*g]) as f32)
        })
        .collect()
    }

    fn rows(&self) -> usize {
        self.codes.len()
    }

    fn cols(&self) -> usize {
        self.groups.len()
    }

    fn count(&self) -> usize {
        self.scales[0].len()
    }

    /// As GPTQ stores it, words of zero points less one in each place where that is asked for.
    pub fn gptq(&self, base: &str, less: bool, into: &mut Tensors) {
        let (rows, cols, count, per) = (self.rows(), self.cols(), self.count(), 32 / self.bits as usize);
        let mut qweight = vec![0u32; cols / per * rows];
        let mut qzeros = vec![0u32; count * (rows / per)];
        for n in 0..rows {
            for k in 0..cols {
                qweight[k / per * rows + n] |= self.codes[n][k] << (self.bits as usize * (k % per));
            }
            for g in 0..count {
                qzeros[g * (rows / per) + n / per] |= self.zeros[n][g] << (self.bits as usize * (n % per));
            }
        }
        let one = if self.bits == 4 { 0x1111_1111 } else { 0x0101_0101 };
        qzeros.iter_mut().filter(|_| less).for_each(|word| *word = word.wrapping_sub(one));
        into.insert(format!("{base}.qweight"), words(&[cols / per, rows], &qweight));
        into.insert(format!("{base}.qzeros"), words(&[count, rows / per], &qzeros));
        into.insert(format!("{base}.scales"), self.scales_by_group());
        let groups: Vec<u32> = self.groups.iter().map(|g| *g as u32).collect();
        into.insert(format!("{base}.g_idx"), words(&[cols], &groups));
    }

    /// As AWQ's gemm stores it.
    pub fn awq(&self, base: &str, into: &mut Tensors) {
        const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
        let (rows, cols, count) = (self.rows(), self.cols(), self.count());
        let word = |of: &dyn Fn(usize) -> u32| (0..8).fold(0, |word, i| word | of(ORDER[i]) << (4 * i));
        let mut qweight = vec![];
        for k in 0..cols {
            qweight.extend((0..rows / 8).map(|w| word(&|i| self.codes[8 * w + i][k])));
        }
        let mut qzeros = vec![];
        for g in 0..count {
            qzeros.extend((0..rows / 8).map(|w| word(&|i| self.zeros[8 * w + i][g])));
        }
        into.insert(format!("{base}.qweight"), words(&[cols, rows / 8], &qweight));
        into.insert(format!("{base}.qzeros"), words(&[count, rows / 8], &qzeros));
        into.insert(format!("{base}.scales"), self.scales_by_group());
    }

    /// As compressed-tensors packs it; zero points are left out where they are the `middle`.
    pub fn compressed(&self, base: &str, middle: bool, into: &mut Tensors) {
        let (rows, cols, count, per) = (self.rows(), self.cols(), self.count(), 32 / self.bits as usize);
        let (width, tall) = (cols.div_ceil(per), rows.div_ceil(per));
        let (mut packed, mut zeros) = (vec![0u32; rows * width], vec![0u32; tall * count]);
        for n in 0..rows {
            for k in 0..cols {
                packed[n * width + k / per] |= self.codes[n][k] << (self.bits as usize * (k % per));
            }
            for g in 0..count {
                zeros[n / per * count + g] |= self.zeros[n][g] << (self.bits as usize * (n % per));
            }
        }
        into.insert(format!("{base}.weight_packed"), words(&[rows, width], &packed));
        let scales =
            self.scales.concat().iter().flat_map(|s| half::bf16::from_f32(*s).to_le_bytes()).collect();
        let scales = Stored { dtype: Dtype::BF16, shape: vec![rows, count], bytes: scales };
        into.insert(format!("{base}.weight_scale"), scales);
        let shape = [rows, cols].iter().flat_map(|n| (*n as i64).to_le_bytes()).collect();
        into.insert(
            format!("{base}.weight_shape"),
            Stored { dtype: Dtype::I64, shape: vec![2], bytes: shape },
        );
        if !middle {
            into.insert(format!("{base}.weight_zero_point"), words(&[tall, count], &zeros));
        }
        if self.groups.is_sorted() {
            return;
        }
        let groups: Vec<u32> = self.groups.iter().map(|g| *g as u32).collect();
        into.insert(format!("{base}.weight_g_idx"), words(&[cols], &groups));
    }

    fn scales_by_group(&self) -> Stored {
        let mut bytes = vec![];
        for g in 0..self.count() {
            bytes.extend(self.scales.iter().flat_map(|row| half::f16::from_f32(row[g]).to_le_bytes()));
        }
        Stored { dtype: Dtype::F16, shape: vec![self.count(), self.rows()], bytes }
    }
}

pub fn words(shape: &[usize], words: &[u32]) -> Stored {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    Stored { dtype: Dtype::I32, shape: shape.to_vec(), bytes }
}
