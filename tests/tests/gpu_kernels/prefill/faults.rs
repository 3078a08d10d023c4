//! What goes wrong in prefill attention: kernels broken on purpose, and sums of few bits.

use fireq_kernels::cuda::PrefillConfig;
use fireq_kernels::cuda::cost_prefill::SHORT_ROW;
use fireq_sim::Accumulator;

use super::super::device::device;
use super::{Attention, Batch, heads};

/// The relative error of a broken kernel's outputs, or what the simulator says of it. Five tiles of keys go through two stages.
fn broken_attention(in_flight: usize, right: &str, wrong: &str) -> Result<f64, String> {
    let config = PrefillConfig { stages: 2, in_flight, promotes: false, cluster: 1 };
    attempt(config, &[(right, wrong)])
}

/// As many heads of one kv head as share its tiles.
fn attempt(config: PrefillConfig, changes: &[(&str, &str)]) -> Result<f64, String> {
    attempt_on(heads(config.cluster, 1, 64), [70, 530], config, changes)
}

/// The same for one sequence of `[tokens, past]`.
pub(super) fn attempt_on(
    attention: Attention,
    length: [usize; 2],
    config: PrefillConfig,
    changes: &[(&str, &str)],
) -> Result<f64, String> {
    let mut gpu = device().expect("asked before");
    let batch = Batch::new(&attention, &[length], 0);
    let (params, rows) = batch.operands(&mut gpu, &attention, &config);
    let unit = attention.sizes.unit(config, String::new()).unwrap();
    let mut source = unit.source().unwrap();
    for (right, wrong) in changes {
        assert_eq!(source.matches(right).count(), 1, "`{right}` is once in the source");
        source = source.replace(right, wrong);
    }
    gpu.attempt(&unit, &source, rows, &params)?;
    Ok(batch.errors(&gpu, &attention, params.out)[0])
}

#[test]
fn attention_without_a_wait_a_fence_or_a_mask_is_caught() {
    if device().is_none() {
        return;
    }
    let refused = |in_flight: usize, right: &str, wrong: &str, said: &str| {
        let fault = broken_attention(in_flight, right, wrong).unwrap_err();
        assert!(fault.contains(said), "without `{}`: {fault}", right.trim());
    };
    let flight = "register of a wgmma in flight";
    refused(3, "wait_for_products<LAST ? 1 : 2>();", "", flight);
    refused(3, "wait_for_products<LAST ? 0 : 1>();", "", flight);
    refused(2, "wait_for_products<1>();\n        scores_are_there", "scores_are_there", flight);
    let fence = "fence_products();\n        if constexpr (Tile::PANELS > 1) ask_panel(running()";
    refused(3, fence, fence.trim_start_matches("fence_products();"), "no wgmma.fence");
    refused(3, "wait(memory.keys_full(keys.stage), keys.parity);", "", "shared");
    // Keys may arrive before queries do, whatever was asked for first.
    refused(3, "wait(memory.queries_full(), 0);", "", "shared");
    refused(3, "wait(memory.keys_empty(ring.stage), ring.parity ^ 1);", "", "shared");
    refused(3, "wait(memory.values_empty(ring.stage), ring.parity ^ 1);", "", "shared");
    refused(3, "    publish_writes();\n}\n\n/// The queries of", "}\n\n/// The queries of", "shared");
    let arrived = "if (has_ended(memory.values_full(values.stage), values.parity)) return;";
    refused(3, arrived, "return;", "shared");
    let masked = "if (visible < Tile::KEYS) mask";
    assert!(broken_attention(3, masked, masked).unwrap() < 5e-4);
    let unmasked = broken_attention(3, masked, "if (visible < 0) mask").unwrap();
    assert!(unmasked > 0.1, "keys behind the query count: {unmasked:.1e}");
    let rescaled =
        broken_attention(2, "if (!any_lane(rescale[0] != 1.0f || rescale[1] != 1.0f)) return;", "return;");
    assert!(rescaled.unwrap() > 0.01, "sums stay those of smaller maxima");
}

#[test]
fn pairs_that_do_not_wait_for_each_other_are_caught() {
    if device().is_none() {
        return;
    }
    let pair = PrefillConfig { stages: 2, in_flight: 3, promotes: false, cluster: 2 };
    assert!(attempt(pair, &[]).unwrap() < 5e-4);
    let refused = |changes: &[(&str, &str)], said: &str| {
        let fault = attempt(pair, changes).unwrap_err();
        assert!(fault.contains(said), "{changes:?}: {fault}");
    };
    // A stage is written to while the peer reads it: keys alone, or values.
    let own = "if (lane < Tile::CLUSTER) arrive_at(empty, lane);";
    let releases = [
        (
            "memory.release(memory.keys_empty(scored.stage));",
            "keys_empty(stage), Tile::CONSUMERS / 32 * Tile::CLUSTER",
        ),
        (
            "memory.release(memory.values_empty(stage));",
            "values_empty(stage), Tile::CONSUMERS / 32 * Tile::CLUSTER",
        ),
    ];
    for (release, count) in releases {
        let alone = release.replace("memory.release(", "if (threadIdx.x % WARP == 0) arrive(");
        refused(&[(release, &alone), (count, count.trim_end_matches(" * Tile::CLUSTER"))], "shared");
    }
    refused(&[(own, "if (lane == 0) arrive(empty);")], "deadlock");
    refused(&[("constexpr u16 ALL = (1 << Tile::CLUSTER) - 1;", "constexpr u16 ALL = 1;")], "deadlock");
    let begin = "are ready.\n    if constexpr (Tile::CLUSTER > 1) {\n        synchronize_cluster();";
    refused(&[(begin, &begin.replace("synchronize_cluster", "synchronize"))], "barrier");
    let end = "let go of their last.\n    if constexpr (Tile::CLUSTER > 1) synchronize_cluster();\n";
    refused(&[(end, "let go of their last.\n")], "a CTA that has ended");
    let other = attempt(
        pair,
        &[("return blockIdx.y * Tile::CLUSTER + blockIdx.x % Tile::CLUSTER;", "return blockIdx.y;")],
    );
    assert!(other.as_ref().map_or(true, |error| *error > 0.1), "a head twice: {other:?}");
}

/// The relative error of queries behind as many others where tensor cores keep 13 bits of sums. Scores are so small that
/// probabilities are nearly alike: outputs are small sums of many terms, of which each bit counts.
fn error_of_few_bits(
    head: usize,
    keys: usize,
    [stages, in_flight]: [usize; 2],
    promotes: bool,
) -> Option<f64> {
    let mut gpu = device()?;
    let attention = Attention { scale: 1.0 / 128.0, ..heads(1, 1, head) };
    let batch = Batch::new(&attention, &[[32, keys - 32]], 0);
    let config = PrefillConfig { stages, in_flight, promotes, cluster: 1 };
    let (params, rows) = batch.operands(&mut gpu, &attention, &config);
    let unit = attention.sizes.unit(config, String::new()).unwrap();
    gpu.launch_with(Accumulator::Truncated { fraction_bits: 13 }, &unit, rows, &params);
    Some(batch.errors(&gpu, &attention, params.out)[0])
}

#[test]
fn sums_of_long_rows_are_promoted() {
    for keys in [SHORT_ROW, 4 * SHORT_ROW, 16 * SHORT_ROW] {
        let [Some(plain), Some(promoted)] = [false, true].map(|p| error_of_few_bits(64, keys, [4, 3], p))
        else {
            return;
        };
        eprintln!("{keys} keys: not promoted {plain:.1e}, promoted {promoted:.1e}");
        assert!(promoted < plain && promoted < 0.01, "{keys} keys: {promoted:.1e}");
        assert!(keys > SHORT_ROW || plain < 0.01, "{keys} keys: {plain:.1e}");
    }
    let panels = error_of_few_bits(256, 4 * SHORT_ROW, [2, 1], true);
    assert!(panels.is_some_and(|error| error < 0.01), "panel by panel: {panels:?}");
}
