//! Products whose CTAs take one tile after another.

use fireq_ir::DType;
use fireq_kernels::cuda::{Addend, Linear, LinearConfig, Output, Unit};

use super::{assert_outputs, case, configured, near, operands};
use crate::device::device;

/// Tiles of 128 × 128 in bands of `band`, sums promoted every `promotion` of `stages` stages' steps.
pub fn banded(band: usize, [stages, steps, promotion]: [usize; 3], cluster: usize) -> LinearConfig {
    LinearConfig { steps, promotion, band, cluster, ..configured([128, 2, stages, 1]) }
}

/// The product's unit on at most `ctas` CTAs.
pub fn on(ctas: usize, linear: &Linear, config: &LinearConfig) -> Unit {
    use fireq_kernels::cuda::Grid;
    let mut unit = linear.unit(config, "a test".into()).unwrap();
    let Grid::Persistent { ctas: most, .. } = &mut unit.grid else { panic!("one tile after another") };
    *most = ctas;
    unit
}

fn check(sizes: [usize; 3], epilogue: (Addend, Output), config: LinearConfig, tokens: usize, ctas: usize) {
    let Some(mut gpu) = device() else { return };
    gpu.near = near(epilogue.1);
    let (linear, case) = case(sizes, epilogue, tokens);
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.launch(&on(ctas, &linear, &config), tokens, 0, &params);
    assert_outputs(&gpu, &case, &linear, params.out, &(config, tokens));
}

/// Six tiles on a CTA or two, in stages that tiles leave anywhere in the ring, with last stages of fewer steps.
#[test]
fn a_cta_takes_tile_after_tile() {
    let plain = |addend| (addend, Output::F32);
    for cols in [272, 512, 656, 1040] {
        check([260, cols, 128], plain(Addend::Residual), banded(1, [3, 2, 4], 1), 140, 1);
    }
    check([388, 400, 64], plain(Addend::Bias(DType::F32)), banded(2, [3, 2, 1], 1), 300, 2);
    check([132, 912, 128], plain(Addend::Nothing), banded(8, [2, 2, 2], 1), 260, 3);
}

/// Odd numbers of tiles leave one CTA of a pair without channels, more clusters than tiles others without any.
#[test]
fn pairs_of_ctas_take_tile_after_tile() {
    let plain = |addend| (addend, Output::F32);
    check([260, 656, 128], plain(Addend::Residual), banded(2, [3, 2, 4], 2), 260, 2);
    check([132, 400, 64], plain(Addend::Nothing), banded(1, [2, 2, 1], 2), 140, 4);
    check([128, 272, 128], plain(Addend::Nothing), banded(11, [3, 2, 4], 2), 130, 8);
}

#[test]
fn tile_after_tile_writes_gated_outputs_and_bf16() {
    check([384, 656, 128], (Addend::Nothing, Output::Swiglu), banded(2, [3, 2, 4], 2), 140, 2);
    check([264, 528, 128], (Addend::Residual, Output::Bf16), banded(1, [3, 2, 4], 1), 130, 2);
}
