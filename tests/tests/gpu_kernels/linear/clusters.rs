//! Products whose tiles, neighbours in channels, read their tokens once for all of them.

use fireq_ir::DType;
use fireq_kernels::cuda::{Addend, LinearConfig, Output};

use super::{check_configured, configured};

/// As `configured` has it, with tokens shared by `cluster` tiles in stages of `steps`.
fn shared(config: [usize; 4], cluster: usize, steps: usize, promotion: usize) -> LinearConfig {
    LinearConfig { cluster, steps, promotion, ..configured(config) }
}

fn check(sizes: [usize; 3], addend: Addend, config: LinearConfig, tokens: usize) {
    check_configured(sizes, (addend, Output::F32), config, tokens);
}

/// Numbers of steps that leave none to three for the last stage, which not every CTA asks for then; numbers of tiles that leave
/// the last CTAs of a cluster without channels.
#[test]
fn tiles_share_tokens_and_the_last_may_have_no_channels() {
    for cols in [128, 272, 656, 1024, 1424] {
        check([132, cols, 128], Addend::Residual, shared([16, 1, 2, 1], 2, 2, 0), 17);
        check([324, cols, 64], Addend::Nothing, shared([8, 1, 2, 1], 4, 4, 0), 9);
    }
    check([260, 1040, 128], Addend::Bias(DType::F32), shared([256, 2, 2, 1], 2, 2, 0), 260);
    check([64, 528, 128], Addend::Nothing, shared([32, 1, 3, 1], 4, 4, 0), 40);
}

/// Clusters of two dimensions: sums are those of a tile's CTAs alone.
#[test]
fn tiles_share_tokens_while_others_share_their_columns() {
    check([132, 1168, 128], Addend::Residual, shared([16, 1, 2, 2], 2, 2, 0), 17);
    check([388, 1424, 128], Addend::Nothing, shared([32, 2, 2, 2], 4, 4, 0), 33);
    check([196, 1040, 64], Addend::Bias(DType::F32), shared([8, 1, 2, 4], 2, 4, 0), 5);
    check([260, 272, 128], Addend::Nothing, shared([8, 2, 3, 4], 2, 2, 0), 3);
}

#[test]
fn tiles_that_share_tokens_promote_their_sums() {
    check([388, 1168, 128], Addend::Residual, shared([128, 2, 3, 1], 2, 2, 4), 130);
    check([132, 1424, 64], Addend::Nothing, shared([64, 1, 2, 1], 2, 4, 4), 70);
    check([196, 784, 128], Addend::Nothing, shared([16, 1, 3, 2], 2, 2, 1), 17);
}

#[test]
fn tiles_that_share_tokens_write_gated_outputs_and_bf16() {
    let gated = (Addend::Nothing, Output::Swiglu);
    check_configured([384, 656, 128], gated, shared([128, 2, 3, 1], 2, 2, 4), 130);
    check_configured([384, 784, 64], gated, shared([16, 2, 3, 2], 2, 2, 0), 20);
    let rounded = (Addend::Residual, Output::Bf16);
    check_configured([136, 400, 128], rounded, shared([64, 1, 3, 1], 2, 2, 0), 70);
}
