//! Products whose tiles share tokens, broken on purpose.

use fireq_kernels::cuda::{Addend, LinearConfig, Output};
use fireq_tests::relative_error;

use super::super::device::device;
use super::super::linear::bands::{banded, on};
use super::super::linear::{case, configured, operands};

/// The relative error of a product by a broken kernel, or what the simulator says of it: six stages go through two, in two
/// clusters of two CTAs, of which the last has no channels.
fn shared(changes: &[(&str, &str)]) -> Result<f64, String> {
    let tokens = 20;
    let mut gpu = device().expect("asked before");
    let (linear, case) = case([132, 1536, 128], (Addend::Residual, Output::F32), tokens);
    let config = LinearConfig { cluster: 2, ..configured([16, 1, 2, 1]) };
    let unit = linear.unit(&config, String::new()).unwrap();
    let mut source = unit.source().unwrap();
    for (right, wrong) in changes {
        assert_eq!(source.matches(right).count(), 1, "`{right}` is once in the source");
        source = source.replace(right, wrong);
    }
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.attempt(&unit, &source, tokens, &params)?;
    Ok(relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, tokens * linear.channels)))
}

const THERE: &str = "address_at(empty, lane % Tile::CLUSTER * Tile::SPLIT + rank % Tile::SPLIT)";

const REFUSED: [(&str, &[(&str, &str)]); 6] = [
    // A CTA asks for tokens as soon as its own warps have let a stage go, whatever the other reads.
    (
        "shared",
        &[
            ("Tile::CONSUMERS / WARP * Tile::CLUSTER);", "Tile::CONSUMERS / WARP);"),
            ("lane < Tile::CLUSTER ? ~0u : 0u", "lane < 1 ? ~0u : 0u"),
            (THERE, "address_at(empty, rank)"),
        ],
    ),
    // Nobody tells the other CTA.
    ("deadlock", &[("lane < Tile::CLUSTER ? ~0u : 0u", "lane < 1 ? ~0u : 0u")]),
    ("shared", &[(THERE, "address_at(empty, rank)")]),
    ("deadlock", &[("((1 << Tile::CTAS) - 1) / ((1 << Tile::SPLIT) - 1)", "1")]),
    (
        "barrier",
        &[(
            "are ready.\n    if constexpr (Tile::CLUSTER > 1) {\n        synchronize_cluster();",
            "are ready.\n    if constexpr (Tile::CLUSTER > 1) {\n        synchronize();",
        )],
    ),
    (
        "a CTA that has ended",
        &[("if constexpr (Tile::CTAS > 1 && Tile::BAND == 0) {", "if constexpr (Tile::SPLIT > 1) {")],
    ),
];

#[test]
fn products_that_share_tokens_without_a_wait_or_a_peer_are_caught() {
    if device().is_none() {
        return;
    }
    assert!(shared(&[]).unwrap() < 1e-6);
    for (said, changes) in REFUSED {
        let fault = shared(changes).unwrap_err();
        assert!(fault.contains(said), "{changes:?}: {fault}");
    }
    let others = shared(&[("channel < p.channels ? channel : 0", "0")]).unwrap();
    assert!(others > 1e-2, "weights of another tile give other outputs: {others:.1e}");
}

/// As above, eight tiles on one pair of CTAs, or two CTAs of their own.
fn in_turn(cluster: usize, cols: usize, changes: &[(&str, &str)]) -> Result<f64, String> {
    let tokens = 140;
    let mut gpu = device().expect("asked before");
    let (linear, case) = case([388, cols, 128], (Addend::Residual, Output::F32), tokens);
    let config = banded(1, [2, 2, 2], cluster);
    let unit = on(2, &linear, &config);
    let mut source = unit.source().unwrap();
    for (right, wrong) in changes {
        assert_eq!(source.matches(right).count(), 1, "`{right}` is once in the source");
        source = source.replace(right, wrong);
    }
    let params = operands(&mut gpu, &case, &linear, &config, tokens);
    gpu.attempt(&unit, &source, tokens, &params)?;
    Ok(relative_error(&case.output(0).to_f32(), &gpu.f32s(params.out, tokens * linear.channels)))
}

#[test]
fn tiles_that_leave_stages_or_sums_behind_are_caught() {
    if device().is_none() {
        return;
    }
    for cols in [144, 592] {
        assert!(in_turn(1, cols, &[]).unwrap() < 1e-6);
        assert!(in_turn(2, cols, &[]).unwrap() < 1e-6);
    }
    let refused = |cluster, cols, change: (&str, &str), said: &str| {
        let found = in_turn(cluster, cols, &[change]);
        assert!(found.as_ref().is_err_and(|fault| fault.contains(said)), "{change:?}: {found:?}");
    };
    refused(1, 592, ("        if (whole < steps) next_stage();\n", ""), "shared");
    refused(1, 592, ("next_stage();\n        let_go();\n", "next_stage();\n"), "deadlock");
    // Tiles of a few stages do not make warps wait for each other in the ring.
    refused(
        1,
        144,
        ("    synchronize_first<Tile::CONSUMERS>();\n    stage_sums", "    stage_sums"),
        "shared",
    );
    let end = "(Tile::CLUSTER > 1 && Tile::BAND > 0)) synchronize_cluster();";
    refused(2, 592, (end, "false) synchronize_cluster();"), "a CTA that has ended");
}
