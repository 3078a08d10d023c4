//! Prefill attention whose queries see all keys, and the configurations that are timed.

use fireq_kernels::cuda::{Prefill, PrefillConfig};

use super::super::device::device;
use super::super::timed;
use super::faults::attempt_on;
use super::{Attention, check, check_one, heads, to_bf16};

fn full(mut attention: Attention) -> Attention {
    attention.sizes.causal = false;
    attention
}

#[test]
fn lengths_from_one_query_on_leave_odd_tails() {
    for (tokens, past) in [(1, 0), (2, 0), (63, 0), (127, 0), (129, 0), (200, 0), (255, 0), (385, 0)] {
        check(full(heads(1, 1, 64)), &[[tokens, past]], [2, 3]);
    }
    check(full(heads(1, 1, 64)), &[[700, 0]], [3, 2]);
    check(full(heads(1, 1, 128)), &[[513, 0]], [2, 2]);
    check(full(heads(1, 1, 128)), &[[300, 0]], [3, 3]);
}

/// Queries of a chunk see the keys before it, those of the chunk, and none behind.
#[test]
fn chunks_see_what_was_before_them() {
    check(full(heads(2, 2, 128)), &[[300, 77]], [2, 3]);
    check(full(heads(2, 2, 64)), &[[1, 699]], [2, 2]);
    check(full(heads(1, 1, 64)), &[[129, 130]], [3, 3]);
}

#[test]
fn grouped_heads_share_keys_and_values() {
    check(full(heads(4, 1, 64)), &[[133, 0]], [2, 3]);
    check(full(heads(8, 2, 128)), &[[37, 92]], [2, 2]);
    check(full(heads(8, 1, 128)), &[[135, 0]], [2, 3]);
    check(full(heads(8, 1, 64)), &[[70, 0]], [3, 2]);
}

#[test]
fn heads_of_two_panels_and_others_are_whole() {
    check(full(heads(2, 1, 256)), &[[140, 21]], [2, 2]);
    check(full(heads(2, 1, 256)), &[[200, 0]], [2, 1]);
    check(to_bf16(full(heads(2, 1, 80))), &[[50, 0], [7, 9]], [2, 3]);
}

/// Sequences of a batch do not see each other's keys.
#[test]
fn sequences_of_a_batch_are_what_they_are_alone() {
    check(full(heads(4, 2, 64)), &[[1, 0], [200, 0], [17, 130], [1, 300]], [3, 3]);
    check(full(heads(2, 1, 128)), &[[130, 127], [64, 0], [3, 255]], [2, 2]);
}

#[test]
fn large_scores_stay_finite() {
    check(full(Attention { scale: 1000.0, ..heads(1, 1, 128) }), &[[130, 0]], [2, 3]);
}

/// What of full attention goes wrong where it takes after causal attention.
#[test]
fn a_causal_mask_or_range_is_caught() {
    if device().is_none() {
        return;
    }
    let config = PrefillConfig { stages: 2, in_flight: 3, promotes: false, cluster: 1 };
    let broken =
        |right: &str, wrong: &str| attempt_on(full(heads(1, 1, 64)), [200, 30], config, &[(right, wrong)]);
    let masked = "mask<Tile::KEYS, Tile::CAUSAL>(s.s, visible)";
    assert!(broken(masked, masked).unwrap() < 5e-4);
    for (right, wrong) in [
        (masked, "mask<Tile::KEYS, true>(s.s, visible)"),
        ("Tile::CAUSAL ? first : p.tokens - count", "first"),
        ("Tile::CAUSAL ? first + 1 : queries.count", "first + 1"),
        ("if (visible < Tile::KEYS) mask", "if (visible < 0) mask"),
    ] {
        let error = broken(right, wrong).unwrap();
        assert!(error.is_nan() || error > 0.01, "`{wrong}` gives other outputs: {error:.1e}");
    }
}

/// Units do not depend on the number of heads, so that these are the ones that are timed.
#[test]
fn every_configuration_that_is_timed_is_right() {
    for (timed, config) in timed::prefill::configurations() {
        let few = heads(2, 1, timed.head);
        let sizes = Prefill { output: timed.output, causal: timed.causal, ..few.sizes };
        check_one(Attention { sizes, ..few }, &[[131, 0], [9, 130]], config);
    }
}
