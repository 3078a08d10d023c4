//! What the cost model says of prefill attention.

use fireq_ir::DType;
use fireq_kernels::cuda::cost_prefill::{candidates, choose, estimate, reason};
use fireq_kernels::cuda::{Prefill, PrefillConfig, Sequence};

fn heads(head: usize) -> Prefill {
    Prefill { heads: 32, kv_heads: 8, head, output: DType::BF16, causal: true }
}

fn prompts(count: usize, tokens: usize) -> Vec<Sequence> {
    (0..count).map(|n| Sequence { query: n * tokens, tokens, past: 0, key: n * tokens }).collect()
}

/// Scores that are wanted, of every head.
fn scores(sequences: &[Sequence]) -> f64 {
    sequences.iter().map(|s| (s.tokens * (s.past + s.past + s.tokens + 1)) as f64 / 2.0).sum::<f64>() * 32.0
}

#[test]
fn every_choice_can_be_launched_and_keeps_to_the_roofline() {
    for head in [64, 80, 128, 256] {
        for (count, tokens) in [(1, 1), (1, 100), (32, 512), (4, 4096), (1, 16384), (1, 32768)] {
            let (attention, sequences) = (heads(head), prompts(count, tokens));
            let (config, estimate) = choose(&attention, &sequences);
            assert!(attention.unit(config, String::new()).is_ok(), "{config:?}");
            assert!(estimate.seconds > 4.0 * head as f64 * scores(&sequences) / 1.98e15, "{head}, {tokens}");
            assert!(
                estimate.seconds > scores(&sequences) / (132.0 * 16.0 * 1.83e9),
                "a power for each score"
            );
            assert!(estimate.tiles[0] > 0.95 * estimate.tiles[1], "the last SM has its share: {estimate:?}");
            let said = reason(&sequences, &config, &estimate);
            assert!(said.contains("unmeasured") && said.contains(estimate.bound()), "{said}");
        }
    }
}

#[test]
fn registers_go_to_promoted_sums_of_long_rows_and_to_scores_in_flight() {
    let chosen = |head, tokens| {
        let config = choose(&heads(head), &prompts(4, tokens)).0;
        (config.in_flight, config.promotes)
    };
    assert_eq!(
        [64, 96, 128, 256].map(|head| chosen(head, 1024)),
        [(3, false), (3, false), (3, false), (2, false)]
    );
    assert_eq!(
        [64, 96, 128, 256].map(|head| chosen(head, 1025)),
        [(3, true), (2, true), (2, true), (1, true)]
    );
    let only = PrefillConfig { stages: 2, in_flight: 2, promotes: false, cluster: 1 };
    let pair = |config| PrefillConfig { cluster: 2, ..config };
    assert_eq!(candidates(&heads(256), false).collect::<Vec<_>>(), [only, pair(only)]);
    let only = PrefillConfig { stages: 2, in_flight: 1, promotes: true, cluster: 1 };
    assert_eq!(candidates(&heads(256), true).collect::<Vec<_>>(), [only, pair(only)]);
}

#[test]
fn what_a_step_has_is_what_it_takes() {
    let attention = heads(128);
    let config = PrefillConfig { stages: 6, in_flight: 3, promotes: false, cluster: 1 };
    let of = |sequences: &[Sequence]| estimate(&attention, &config, sequences);
    let (one, chunk) = (
        Sequence { tokens: 1024, ..Sequence::default() },
        Sequence { past: 8192, tokens: 1024, ..Sequence::default() },
    );
    assert!(of(&[chunk]).seconds > 5.0 * of(&[one]).seconds, "a chunk sees what was before it");
    let all = estimate(&Prefill { causal: false, ..attention }, &config, &prompts(4, 4096));
    let causal = of(&prompts(4, 4096));
    // Of 32 tiles of queries the n-th sees n of 32 tiles of keys, or all.
    assert!((all.tiles[1] / causal.tiles[1] - 32.0 / 16.5).abs() < 1e-9);
    assert!(all.seconds > 1.5 * causal.seconds, "{all:?}, {causal:?}");
    let [few, many] = [prompts(1, 4096), prompts(4, 4096)].map(|sequences| of(&sequences));
    assert!(many.seconds < 4.0 * few.seconds, "more tiles are shared out more evenly");
    assert_eq!(many.bound(), "tensor cores");
    assert_eq!(estimate(&heads(64), &config, &prompts(4, 4096)).bound(), "powers of two");
}

/// Pairs halve what the cache is asked for; the model itself gains nothing from that, and loses little.
#[test]
fn pairs_share_copies_where_the_cache_would_be_busy() {
    for (head, tokens, wants_pairs) in
        [(128, 512, false), (128, 8192, true), (256, 8192, true), (64, 8192, false)]
    {
        let (attention, sequences) = (heads(head), prompts(4, tokens));
        let (config, _) = choose(&attention, &sequences);
        assert_eq!(config.cluster == 2, wants_pairs, "{head}, {tokens}: {config:?}");
        let [alone, pair] =
            [1, 2].map(|cluster| estimate(&attention, &PrefillConfig { cluster, ..config }, &sequences));
        eprintln!(
            "{head}, {tokens}: cache {:.2} of the time, in pairs {:.2}",
            alone.cache / alone.seconds,
            pair.cache / pair.seconds
        );
        let kept = if wants_pairs { 0.6 } else { 0.8 };
        assert!(pair.cache < kept * alone.cache, "{alone:?} {pair:?}");
        assert!(pair.seconds < 1.03 * alone.seconds, "{alone:?} {pair:?}");
        let each = Prefill { kv_heads: 32, ..attention };
        assert_eq!(choose(&each, &sequences).0.cluster, 1, "heads that share no keys have nothing to share");
    }
}
