//! Kernels broken on purpose: the simulator or the comparison must notice, or these tests prove nothing.

use fireq_kernels::cuda::params::{self, Params, Quantize};
use fireq_kernels::cuda::{Addend, LinearConfig, LinearFp8Config, Output, Schedule, Unit, quantize, sample};
use fireq_runtime::Sampling;
use fireq_tests::relative_error;

use super::device::device;
use super::linear::{case, configured, operands};
use super::linear_fp8::Product;

/// A unit's source with `right` replaced by `wrong`.
fn broken(unit: &Unit, right: &str, wrong: &str) -> String {
    let source = unit.source().unwrap();
    assert_eq!(source.matches(right).count(), 1, "`{right}` is once in the source");
    source.replace(right, wrong)
}

/// Codes of two rows of 1000 numbers by a broken kernel, or what the simulator says of it.
fn codes(right: &str, wrong: &str) -> Result<Vec<u8>, String> {
    let (cols, rows) = (1000, 2);
    let mut gpu = device().expect("asked before");
    let unit = quantize(cols).unwrap();
    let x: Vec<f32> = (0..cols * rows).map(|i| (i as f32 * 0.7).sin() * (i + 1) as f32).collect();
    let (codes, scales) = (gpu.space("codes", cols * rows), gpu.space("scales", 4 * rows));
    let params = Quantize { x: gpu.put_f32("x", &x), codes, scales };
    gpu.attempt(&unit, &broken(&unit, right, wrong), rows, &params)?;
    Ok(gpu.bytes(codes, cols * rows))
}

#[test]
fn a_missing_barrier_an_end_too_late_and_a_wrong_scale_are_caught() {
    if device().is_none() {
        return;
    }
    let same = "synchronize();\n    x = shared[0];";
    let right = codes(same, same).unwrap();
    let barrier = codes(same, "x = shared[0];").unwrap_err();
    assert!(barrier.contains("shared"), "{barrier}");
    let end = codes("return column(n) < COLS;", "return column(n) <= COLS;").unwrap_err();
    assert!(end.contains("codes") || end.contains("`x`"), "{end}");
    let scale = codes("E4M3_MAX = 448.0f;", "E4M3_MAX = 447.0f;").unwrap();
    assert!(scale != right, "another scale gives other codes");
}

#[test]
fn bins_that_are_read_before_they_are_full_are_caught() {
    let Some(mut gpu) = device() else { return };
    let (cols, unit) = (1000, sample(1000));
    let draw = Sampling::Random { temperature: 1.0, top_p: 0.9, seed: 1 }.draw(0);
    let logits: Vec<f32> = (0..cols).map(|i| (i as f32 * 0.7).sin()).collect();
    let (x, draws) = (gpu.put_f32("x", &logits), gpu.put("draws", &draw.bytes()));
    let params = params::Sample { x, draws, index: gpu.space("index", 4) };
    let right = "add_shared(&shared.bins[0], low);\n    synchronize();";
    let mut attempt = |wrong: &str| gpu.attempt(&unit, &broken(&unit, right, wrong), 1, &params);
    attempt(right).unwrap();
    let fault = attempt("add_shared(&shared.bins[0], low);").unwrap_err();
    assert!(fault.contains("shared"), "{fault}");
}

/// The relative error of a product by a broken kernel, or what the simulator says of it. Six steps for each of two CTAs go
/// through two stages of two, and are promoted or not.
fn product(promotion: usize, right: &str, wrong: &str) -> Result<f64, String> {
    let tokens = 20;
    let mut gpu = device().expect("asked before");
    let (linear, case) = case([128, 1536, 128], (Addend::Residual, Output::F32), tokens);
    let config = LinearConfig { promotion, ..configured([16, 2, 2, 2]) };
    let unit = linear.unit(&config, String::new()).unwrap();
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.attempt(&unit, &broken(&unit, right, wrong), tokens, &params)?;
    Ok(relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, tokens * linear.channels)))
}

#[test]
fn products_without_a_fence_a_wait_or_patience_are_caught() {
    if device().is_none() {
        return;
    }
    let fence = "        fence_products();\n";
    assert!(product(0, fence, fence).unwrap() < 1e-6);
    let refused = |right: &str, wrong: &str, said: &str| {
        let fault = product(0, right, wrong).unwrap_err();
        assert!(fault.contains(said), "without `{}`: {fault}", right.trim());
    };
    refused(fence, "", "no wgmma.fence");
    refused("if (n == 0) wait(barrier, ring.parity);", "", "shared");
    refused("wait(memory.empty(ring.stage), ring.parity ^ 1);", "", "shared");
    let [done, release] = ["wait_for_products<1>();", "if (n == 0 && !anew) let_go();"];
    let patient = format!("{done}\n        {release}");
    refused(&patient, &format!("{release}\n        {done}"), "shared");
    refused("        wait_for_products<0>();\n", "", "register of a wgmma in flight");
    refused("    publish_barriers();\n", "", "fence");
    refused("    synchronize_first<Tile::CONSUMERS>();\n    stage_sums", "    stage_sums", "shared");
    let last = "read it.\n    if constexpr (Tile::SPLIT > 1) synchronize_cluster();\n";
    refused(last, "read it.\n", "a CTA that has ended");
    let twice = product(0, "y[0][i] += added[i];", "y[0][i] = added[i] + added[i];").unwrap();
    assert!(twice > 1e-3, "another sum gives other outputs: {twice:.1e}");
}

#[test]
fn promotions_without_a_wait_or_a_new_beginning_are_caught() {
    if device().is_none() {
        return;
    }
    let wait = "    wait_for_products<0>();\n    keep_in_place(running);\n";
    assert!(product(2, wait, wait).unwrap() < 1e-6);
    let fault = product(2, wait, "    keep_in_place(running);\n").unwrap_err();
    assert!(fault.contains("register of a wgmma in flight"), "{fault}");
    let kept = product(2, "!anew || part > 0", "true").unwrap();
    assert!(kept > 0.1, "sums that never begin anew are added again and again: {kept:.1e}");
    let early =
        product(2, "            promote(running, sums);\n", "            wait_for_products<0>();\n").unwrap();
    assert!(early > 0.1, "sums that begin anew and were not added are lost: {early:.1e}");
}

/// As [`product`], with a decoded weight: eight tiles of six steps on one pair of CTAs.
fn decoded(schedule: Schedule, changes: &[(&str, &str)]) -> Result<f64, String> {
    decoded_to([388, 720], (Addend::Residual, Output::F32), schedule, changes)
}

fn decoded_to(
    [channels, cols]: [usize; 2],
    epilogue: (Addend, Output),
    schedule: Schedule,
    changes: &[(&str, &str)],
) -> Result<f64, String> {
    let mut gpu = device().expect("asked before");
    let tokens = 140;
    let (linear, case) = case([channels, cols, 128], epilogue, tokens);
    let config = LinearFp8Config { tokens: 128, stages: 2, cluster: 2, promotion: 4, schedule };
    let product = Product { linear, config, tokens, ctas: 2, band: 1 };
    let (unit, params) = (product.unit(), product.operands(&mut gpu, &case));
    let mut source = unit.source().unwrap();
    for (right, wrong) in changes {
        assert_eq!(source.matches(right).count(), 1, "`{right}` is once in the source");
        source = source.replace(right, wrong);
    }
    gpu.attempt(&unit, &source, tokens, &params)?;
    Ok(relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, tokens * linear.outputs())))
}

const REFUSED: [(&str, &[(&str, &str)]); 13] = [
    (
        "no wgmma.fence",
        &[("        fence_products();\n        constexpr u32 OWN", "        constexpr u32 OWN")],
    ),
    ("shared", &[("        wait(memory.full(ring.stage), ring.parity);\n        fence", "        fence")]),
    (
        "arrivals where 0 are pending",
        &[(
            "            wait(memory.empty(ring.stage), ring.parity ^ 1);\n            arrive",
            "            arrive",
        )],
    ),
    (
        "deadlock",
        &[("parity ^ 1);\n            arrive_expecting(full", "parity);\n            arrive_expecting(full")],
    ),
    // The peer that shares tokens is not asked, or does not answer.
    (
        "shared",
        &[
            ("Tile::OWNERS * Tile::CLUSTER);", "Tile::OWNERS);"),
            (
                "if (lane < Tile::CLUSTER) arrive_at(memory.empty(stage), lane);",
                "if (lane == 0) arrive(memory.empty(stage));",
            ),
        ],
    ),
    ("deadlock", &[("if (lane < Tile::CLUSTER) arrive_at", "if (lane == cluster_rank()) arrive_at")]),
    (
        "shared",
        &[(
            "            wait_for_products<1>();\n            release(before);",
            "            release(before);\n            wait_for_products<1>();",
        )],
    ),
    ("deadlock", &[("constexpr u16 ALL = (1 << Tile::CLUSTER) - 1;", "constexpr u16 ALL = 1;")]),
    (
        "fence",
        &[(
            "    publish_barriers();\n}\n\n/// What one thread of each CTA",
            "}\n\n/// What one thread of each CTA",
        )],
    ),
    (
        "barrier",
        &[(
            "are ready.\n    if constexpr (Tile::CLUSTER > 1) {\n        synchronize_cluster();",
            "are ready.\n    if constexpr (Tile::CLUSTER > 1) {\n        synchronize();",
        )],
    ),
    (
        "a CTA that has ended",
        &[(
            "let go of the last.\n    if constexpr (Tile::CLUSTER > 1) synchronize_cluster();\n",
            "let go of the last.\n",
        )],
    ),
    ("shared", &[("                synchronize_four_warps(1 + warpgroup());\n", "")]),
    (
        "shared",
        &[
            ("memory.staged(warpgroup(), chunk % 2)", "memory.staged(warpgroup(), 0)"),
            ("warpgroup() : operand, chunk % 2)", "warpgroup() : operand, 0)"),
        ],
    ),
];

#[test]
fn products_with_decoded_weights_without_a_wait_or_a_peer_are_caught() {
    if device().is_none() {
        return;
    }
    assert!(decoded(Schedule::Together, &[]).unwrap() < 1e-6);
    for (said, changes) in REFUSED {
        let fault = decoded(Schedule::Together, changes).unwrap_err();
        assert!(fault.contains(said), "{changes:?}: {fault}");
    }
    let turn = ("if constexpr (Tile::ALTERNATES) take_turn();", "");
    assert!(decoded(Schedule::Alternately, &[]).unwrap() < 1e-6);
    let early = decoded(Schedule::Alternately, &[turn]);
    assert!(early.as_ref().map_or(true, |error| *error > 1e-3), "{early:?}");
    let forgotten = decoded(Schedule::Together, &[("sums[n] += part[n];", "sums[n] = part[n];")]).unwrap();
    assert!(forgotten > 1e-3, "other sums give other outputs: {forgotten:.1e}");
}

/// Gates meet their ups in shared memory: both warpgroups have to have written, and each row of boxes its own place.
#[test]
fn gates_that_do_not_wait_for_ups_are_caught() {
    if device().is_none() {
        return;
    }
    let gated = |changes: &[(&str, &str)]| {
        decoded_to([256, 272], (Addend::Nothing, Output::Swiglu), Schedule::Together, changes)
    };
    assert!(gated(&[]).unwrap() < 1e-6);
    let alone = ("synchronize_first<Tile::CONSUMERS>();", "synchronize_four_warps(1 + warpgroup());");
    let fault = gated(&[alone]).unwrap_err();
    assert!(fault.contains("shared"), "{fault}");
    let other = gated(&[("channel + static_cast<i32>(box * apart)", "channel + static_cast<i32>(box * 64)")]);
    assert!(other.as_ref().unwrap() > &1e-2, "ups of other gates: {other:?}");
}
