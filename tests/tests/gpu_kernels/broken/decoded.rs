//! Products with decoded weights, broken on purpose.

use fireq_kernels::cuda::{Addend, LinearFp8Config, Output, Schedule};
use fireq_tests::relative_error;

use super::super::device::device;
use super::super::linear::case;
use super::super::linear_fp8::Product;

/// As with records, with a decoded weight: eight tiles of six steps on one pair of CTAs.
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

const REFUSED: [(&str, &[(&str, &str)]); 14] = [
    (
        "an earlier launch may still write",
        &[("    // Weights, too: an earlier launch decodes them.\n    wait_for_earlier_launches();\n", "")],
    ),
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
