//! How often tensor cores hand their sums to FP32 registers.

use crate::records::COLS;

/// Columns up to which tensor cores keep their sums, and the columns that they add up at a time where there are more.
const KEPT: usize = 2048;
const AT_A_TIME: usize = 512;

/// Steps of 128 columns after which sums over `cols` columns move from tensor cores to FP32 registers, 0 where they never do:
/// the cheapest of never, every 512 and every 128 columns whose error is below a tenth of the quantization's.
///
/// Hopper's tensor cores are reported to keep 13 or 14 bits of a sum of FP8 products (DeepSeek-V3, arXiv 2412.19437, section
/// 3.3.2), which nothing here has verified. With 13 below the leading one the errors of a product are, relative to f64 in the
/// L2 norm, beside that of quantizing weights and activations:
///
/// ```text
/// columns  signs        never   every 512   every 128   quantization
///    1024  Random    0.0486 %    0.0329 %    0.0130 %         9.87 %
///    1024  Leaning   0.0777 %    0.0331 %    0.0089 %         4.65 %
///    2048  Random    0.0829 %    0.0356 %    0.0150 %        10.65 %
///    2048  Leaning   0.1627 %    0.0284 %    0.0078 %         3.16 %
///    4096  Random    0.1201 %    0.0367 %    0.0150 %        10.57 %
///    4096  Leaning   0.3688 %    0.0240 %    0.0070 %         2.37 %
///   14336  Random    0.2924 %    0.0361 %    0.0151 %        10.35 %
///   14336  Leaning   1.6943 %    0.0201 %    0.0057 %         1.60 %
///   28672  Random    0.4196 %    0.0364 %    0.0155 %        11.04 %
///   28672  Leaning   3.8331 %    0.0191 %    0.0056 %         0.98 %
/// ```
///
/// Weights are normal numbers, activations too, with one channel in 512 twenty times as large; `Random` leaves it at that,
/// `Leaning` takes activations without their signs and weights whose mean is a tenth of their deviation. Sums grow then, and
/// what is cut off small products against them has one direction: this decides.
/// `cargo test -p fireq-tests --test gpu_kernels promotion -- --nocapture` prints the table and checks the choice.
pub fn promotion(cols: usize) -> usize {
    if cols <= KEPT { 0 } else { AT_A_TIME / COLS }
}

/// What promotions add to a function's name.
pub(super) fn in_a_name(promotion: usize) -> String {
    if promotion > 0 { format!("_p{promotion}") } else { String::new() }
}

/// When sums are promoted, in words.
pub(super) fn in_words(promotion: usize) -> String {
    match promotion {
        0 => "sums never promoted".into(),
        steps => format!("sums promoted every {} columns", steps * COLS),
    }
}
