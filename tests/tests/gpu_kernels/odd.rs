//! Products of sizes that are no multiples of anything: columns that fill no 16 bytes, whose rows have others behind them that
//! are no numbers; channels whose rows begin at any float; short last groups.

use fireq_ir::DType;
use fireq_ir::interp::Data;
use fireq_kernels::cuda::cost::choose;
use fireq_kernels::cuda::{Addend, Linear, LinearConfig, LinearFp8Config, Output, Schedule, cost_fp8};

use super::linear::{case, check_configured, configured};
use super::linear_fp8::{check_decoding, check_output, tiles};

const NOTHING: Addend = Addend::Nothing;
const RESIDUAL: Addend = Addend::Residual;

/// Every number that the columns of a step can be too many by, and groups that end in one.
#[test]
fn any_columns_are_the_interpreters() {
    for cols in [1, 15, 17, 63, 65, 127, 129, 130, 172, 193, 257, 271, 577] {
        for group in [64, 128] {
            check_configured([68, cols, group], (NOTHING, Output::F32), configured([8, 1, 2, 1]), 9);
        }
    }
}

/// K split among CTAs of which the last has one column, and promoted sums.
#[test]
fn the_last_of_those_who_share_columns_may_have_one() {
    for (cols, config) in [
        (385, configured([16, 1, 2, 4])),
        (897, configured([8, 2, 3, 8])),
        (1025, LinearConfig { promotion: 4, ..configured([32, 2, 3, 2]) }),
        (513, LinearConfig { steps: 4, promotion: 1, ..configured([128, 1, 2, 1]) }),
    ] {
        check_configured([257, cols, 128], (RESIDUAL, Output::F32), config, config.tokens + 1);
    }
}

/// Rows that begin at multiples of 8 or of 4 bytes, with everything that is added, by one CTA and by several.
#[test]
fn any_channels_are_the_interpreters() {
    let added =
        [NOTHING, RESIDUAL, Addend::Bias(DType::F32), Addend::Bias(DType::BF16), Addend::Bias(DType::F16)];
    for addend in added {
        for channels in [1, 2, 63, 66, 130, 257] {
            let config = if channels > 64 { configured([16, 2, 2, 2]) } else { configured([8, 1, 3, 1]) };
            check_configured([channels, 130, 128], (addend, Output::F32), config, 19);
        }
    }
    check_configured([258, 172, 64], (RESIDUAL, Output::F32), configured([256, 2, 2, 1]), 70);
}

/// Sixteen bytes are eight outputs, of which rows allow four, two or one.
#[test]
fn any_channels_round_to_bf16() {
    for (channels, addend) in
        [(172, RESIDUAL), (130, NOTHING), (257, Addend::Bias(DType::BF16)), (257, RESIDUAL), (1, NOTHING)]
    {
        check_configured([channels, 257, 128], (addend, Output::Bf16), configured([16, 1, 3, 2]), 21);
        let config = LinearFp8Config { cluster: 2, ..tiles(128, 2) };
        check_output([channels, 257], (addend, Output::Bf16), config, 131, [2, 2]);
    }
}

/// What is decoded is zero behind the last channel and column.
#[test]
fn weights_of_any_size_are_decoded() {
    for sizes in [[1, 1, 128], [257, 130, 128], [130, 257, 64], [344, 576, 64], [576, 172, 128]] {
        let (linear, case) = case(sizes, (NOTHING, Output::F32), 1);
        let Data::Quant(weight) = case.constant_tensor("w").data else { panic!("the weight is quantized") };
        check_decoding(&linear, &weight);
    }
}

/// Every schedule, with what leaves the fewest registers.
#[test]
fn products_with_decoded_weights_of_any_size_are_the_interpreters() {
    let pair = |tokens, stages| LinearFp8Config { cluster: 2, ..tiles(tokens, stages) };
    let in_turn = |config| LinearFp8Config { schedule: Schedule::Alternately, ..config };
    let check = |sizes, addend, config: LinearFp8Config| {
        check_output(sizes, (addend, Output::F32), config, config.tokens + 3, [2, 2]);
    };
    for channels in [257, 258] {
        check([channels, 130], RESIDUAL, pair(256, 3));
        check([channels, 271], NOTHING, LinearFp8Config { promotion: 1, ..pair(192, 3) });
        check([channels, 172], RESIDUAL, in_turn(LinearFp8Config { promotion: 4, ..pair(192, 3) }));
        check([channels, 1], Addend::Bias(DType::F32), in_turn(tiles(128, 2)));
        check([channels, 129], Addend::Bias(DType::BF16), tiles(128, 2));
    }
    check([3, 577], RESIDUAL, tiles(128, 3));
}

/// Gates come in 64; their columns need not.
#[test]
fn gated_products_have_any_columns() {
    let gated = (NOTHING, Output::Swiglu);
    for cols in [130, 172, 257] {
        check_configured([256, cols, 64], gated, configured([16, 2, 2, 2]), 17);
        check_output([256, cols], gated, tiles(128, 2), 20, [1, 1]);
    }
}

/// Products of a model with 576 hidden channels, 172 in its feed-forward part, and heads of 48, 80 and 96 channels, three of
/// queries to one of keys, as the cost models do them for one token and for many.
#[test]
fn products_of_a_model_of_odd_sizes_are_the_interpreters() {
    let merged = |heads: usize, head: usize| heads / 3 * 5 * head;
    let products = [
        ([merged(12, 48), 576], NOTHING),
        ([merged(6, 80), 480], Addend::Bias(DType::BF16)),
        ([merged(6, 96), 576], NOTHING),
        ([576, 576], RESIDUAL),
        ([344, 576], NOTHING),
        ([576, 172], RESIDUAL),
    ];
    for ([channels, cols], addend) in products {
        let linear = Linear { addend, ..Linear::plain(channels, cols, 128) };
        for tokens in [1, 33] {
            let (config, _) = choose(&linear, tokens);
            check_configured([channels, cols, 128], (addend, Output::F32), config, tokens);
        }
        let (config, _) = cost_fp8::choose(&linear.into(), 4096);
        check_output([channels, cols], (addend, Output::F32), config, 67, [2 * config.cluster, 4]);
    }
}
