//! What the cost model says of weights that are decoded before their products.

use fireq_ir::DType;
use fireq_kernels::cuda::cost_fp8::{CTAS, Way, choose, decode_seconds, estimate, paths};
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, LinearFp8Config, MOST_SHARED, Output, Schedule};

fn linears() -> impl Iterator<Item = Linear> {
    let shapes =
        [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (57344, 8192), (64, 64), (132, 1040)];
    let epilogues = [
        (Addend::Nothing, Output::F32),
        (Addend::Residual, Output::F32),
        (Addend::Bias(DType::BF16), Output::Bf16),
        (Addend::Nothing, Output::Swiglu),
    ];
    let all = shapes.into_iter().flat_map(move |(channels, cols)| {
        epilogues.map(|(addend, output)| Linear { addend, output, ..Linear::plain(channels, cols, 128) })
    });
    all.filter(|linear| linear.check().is_ok())
}

const TOKENS: [usize; 6] = [64, 256, 1024, 4096, 8192, 16384];

#[test]
fn every_choice_can_be_launched_and_keeps_to_the_roofline() {
    for linear in linears() {
        for tokens in TOKENS {
            let decoded = LinearFp8::from(linear);
            let (config, estimate) = choose(&decoded, tokens);
            assert!(config.shared() <= MOST_SHARED && config.stages >= 4, "{config:?}");
            assert!(decoded.unit(&config, CTAS, String::new()).is_ok());
            let flops = 2.0 * (tokens * linear.channels * linear.cols) as f64;
            let outputs = linear.output.bytes() * linear.channels;
            let bytes = (linear.channels * linear.cols + tokens * (linear.cols + outputs)) as f64;
            assert!(estimate.seconds > flops / 1.98e15 && estimate.seconds > bytes / 4.8e12, "{estimate:?}");
            assert!(decode_seconds(&linear) > 1.5 * (linear.channels * linear.cols) as f64 / 4.8e12);
        }
    }
}

#[test]
fn paths_cover_every_number_of_tokens_once() {
    for linear in linears() {
        let paths = paths(&linear);
        assert_eq!((paths[0].from, paths.last().unwrap().to), (1, None));
        assert!(matches!(paths[0].way, Way::Records(..)), "{linear:?}: one token");
        for (before, after) in paths.iter().zip(&paths[1..]) {
            assert_eq!(before.to.map(|to| to + 1), Some(after.from));
            assert_ne!(before.way, after.way);
        }
    }
}

#[test]
fn what_a_configuration_has_is_what_it_is_for() {
    let up = LinearFp8::from(Linear::plain(28672, 4096, 128));
    let base =
        LinearFp8Config { tokens: 128, stages: 4, cluster: 1, promotion: 0, schedule: Schedule::Together };
    let of = |config| estimate(&up, &config, 4096);
    let pairs = LinearFp8Config { cluster: 2, ..base };
    assert!(of(pairs).memory < of(base).memory, "tokens are read once for two CTAs");
    let large = LinearFp8Config { tokens: 256, ..base };
    assert!(of(large).shared < of(base).shared, "weights are read for more tokens");
    let in_turn = LinearFp8Config { schedule: Schedule::Alternately, ..base };
    assert!(of(in_turn).ends < of(base).ends, "sums go out while others are multiplied");
    let in_turn = LinearFp8Config { tokens: 192, cluster: 2, ..in_turn };
    let promoted = LinearFp8Config { promotion: 1, ..in_turn };
    assert!(of(promoted).seconds > of(in_turn).seconds, "nobody multiplies while sums are promoted");
}

/// The ways for Llama-3-8B with what the model says of them: to be held against measurements.
#[test]
fn ways_for_llama_3_8b() {
    let mut table = String::new();
    let products = [
        ("q/k/v", 6144, 4096, Addend::Nothing, Output::F32),
        ("o", 4096, 4096, Addend::Residual, Output::F32),
        ("gate/up", 28672, 4096, Addend::Nothing, Output::Swiglu),
        ("down", 4096, 14336, Addend::Residual, Output::F32),
    ];
    for (name, channels, cols, addend, output) in products {
        for path in paths(&Linear { addend, output, ..Linear::plain(channels, cols, 128) }) {
            let tokens = path.to.map_or("more".into(), |to| to.to_string());
            let way = match path.way {
                Way::Records(c, _) => format!("records, {} × {}", c.channels(), c.tokens),
                Way::Workspace(c, e, decode) => format!(
                    "decoded in {:.1} µs, {} × {} {:?}, {} stages, clusters of {}, bound by {}",
                    decode * 1e6,
                    c.channels(),
                    c.tokens,
                    c.schedule,
                    c.stages,
                    c.cluster,
                    e.bound()
                ),
            };
            table += &format!("{name:8} to {tokens:>5} tokens: {:8.1} µs, {way}\n", path.way.seconds() * 1e6);
        }
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("linear_ways", table);
    });
}
