//! What the cost model chooses, for the products of models in use.

use fireq_kernels::cuda::cost::{MANY, choose, estimate, regimes};
use fireq_kernels::cuda::{Linear, LinearConfig, MOST_SHARED};

/// Merged q/k/v, o, merged gate/up and down of Llama-2-7B, Llama-3-8B and Llama-3-70B, and of a model of toy size.
const SHAPES: [(usize, usize); 14] = [
    (12288, 4096),
    (4096, 4096),
    (22016, 4096),
    (4096, 11008),
    (6144, 4096),
    (28672, 4096),
    (4096, 14336),
    (10240, 8192),
    (8192, 8192),
    (57344, 8192),
    (8192, 28672),
    (64, 64),
    (4, 16),
    (132, 1040),
];

fn linears() -> impl Iterator<Item = Linear> {
    SHAPES
        .into_iter()
        .flat_map(|(channels, cols)| [64, 128].map(|group| Linear::plain(channels, cols, group)))
}

const TOKENS: [usize; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384];

#[test]
fn every_choice_can_be_launched() {
    for linear in linears() {
        for tokens in TOKENS {
            let (config, estimate) = choose(&linear, tokens);
            assert!(
                config.shared(linear.group) <= MOST_SHARED && config.split <= linear.steps(),
                "{config:?}"
            );
            assert!(config.tokens <= tokens.next_power_of_two().max(8), "{tokens} tokens in {config:?}");
            assert!(linear.unit(&config, String::new()).is_ok());
            assert!(estimate.seconds.is_finite() && estimate.seconds >= estimate.memory, "{estimate:?}");
        }
    }
}

#[test]
fn k_is_split_less_and_time_never_falls_as_tokens_rise() {
    for linear in linears() {
        let of: Vec<_> = TOKENS.iter().map(|tokens| choose(&linear, *tokens)).collect();
        for (few, more) in of.iter().zip(&of[1..]) {
            // Where K is split, sums are short and need no promotion, which takes registers.
            let unpromoted = more.0.promotion < few.0.promotion;
            assert!(more.0.split <= few.0.split || unpromoted, "{linear:?}: {few:?}, then {more:?}");
            // Choices within 2 % of each other are as good.
            assert!(more.1.seconds * 1.02 >= few.1.seconds, "{linear:?}: {few:?}, then {more:?}");
        }
        assert_eq!(of.last().unwrap().0.split, 1);
    }
}

#[test]
fn regimes_cover_every_number_of_tokens_once() {
    for linear in linears() {
        let regimes = regimes(&linear);
        assert_eq!((regimes[0].from, regimes.last().unwrap().to), (1, None));
        for (before, after) in regimes.iter().zip(&regimes[1..]) {
            assert_eq!(before.to.map(|to| to + 1), Some(after.from));
            assert_ne!(before.config, after.config);
        }
    }
}

/// No prediction beats the machine: peaks of tensor cores and memory bound it from below, and it comes near where there
/// is work for all.
#[test]
fn predictions_keep_to_the_roofline() {
    for linear in linears() {
        for tokens in TOKENS {
            let (_, estimate) = choose(&linear, tokens);
            let flops = 2.0 * (tokens * linear.channels * linear.cols) as f64;
            let bytes = (linear.channels * linear.cols) as f64 / 2.0;
            assert!(estimate.seconds > flops / 1.98e15 && estimate.seconds > bytes / 4.8e12, "{estimate:?}");
        }
    }
    let up = Linear::plain(28672, 4096, 128);
    let flops = 2.0 * (MANY * up.channels * up.cols) as f64;
    assert!(flops / choose(&up, MANY).1.seconds > 1e15);
}

#[test]
fn a_longer_pipeline_and_smaller_tiles_help_few_tokens() {
    let down = Linear::plain(4096, 14336, 128);
    let seconds = |tokens, stages, split| {
        let config = LinearConfig {
            tokens,
            warpgroups: 1,
            stages,
            steps: 2,
            split,
            cluster: 1,
            promotion: 0,
            band: 0,
        };
        estimate(&down, &config, 1).seconds
    };
    assert!(seconds(8, 4, 1) < seconds(8, 2, 1), "more bytes on their way");
    assert!(seconds(8, 3, 8) < seconds(8, 3, 1), "more SMs with work");
    assert!(seconds(8, 3, 2) < seconds(256, 2, 2), "no token columns that nobody wants");
}

/// The choices for Llama-3-8B with what the model says of them: to be held against measurements.
#[test]
fn choices_for_llama_3_8b() {
    let mut table = String::new();
    for (name, channels, cols) in
        [("q/k/v", 6144, 4096), ("o", 4096, 4096), ("gate/up", 28672, 4096), ("down", 4096, 14336)]
    {
        for tokens in [1, 4, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384] {
            let (c, e) = choose(&Linear::plain(channels, cols, 128), tokens);
            table += &format!(
                "{name:8}{tokens:6} tokens: {:4} × {:3}, {} stages of {}, split {}: {:8.1} µs, bound by {}\n",
                c.channels(),
                c.tokens,
                c.stages,
                c.steps,
                c.split,
                e.seconds * 1e6,
                e.bound()
            );
        }
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("linear_choices", table);
    });
}
