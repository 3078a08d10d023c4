//! Kernels broken on purpose: the simulator or the comparison must notice, or these tests prove nothing.

mod decoded;
mod odd;
mod overlap;
mod shared;

use fireq_kernels::cuda::params::{self, Params, Quantize};
use fireq_kernels::cuda::{Addend, LinearConfig, Output, Unit, quantize, sample};
use fireq_kernels::layout::pitch;
use fireq_runtime::Sampling;
use fireq_tests::relative_error;

use super::decode_attention::{self, Step, WHOLE};
use super::device::device;
use super::linear::{case, configured, operands};

/// A unit's source with `right` replaced by `wrong`.
pub fn broken(unit: &Unit, right: &str, wrong: &str) -> String {
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
    let (codes, scales) = (gpu.space("codes", pitch(cols) * rows), gpu.space("scales", 4 * rows));
    let params = Quantize { x: gpu.put_f32("x", &x), codes, scales };
    gpu.attempt(&unit, &broken(&unit, right, wrong), rows, &params)?;
    Ok(gpu.bytes(codes, pitch(cols) * rows))
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
    let last = "if constexpr (Tile::SPLIT > 1 || (Tile";
    refused(last, "if constexpr (false && (Tile", "a CTA that has ended");
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

/// The relative error of decode attention by a broken kernel, or what the simulator says of it: eight tiles go through four
/// stages.
fn attention(right: &str, wrong: &str) -> Result<f64, String> {
    let mut gpu = device().expect("asked before");
    let (of, keys) = (decode_attention::of([2, 1, 256, 64]), [500]);
    let step = Step::new(of, &keys, 0.1);
    let params = step.params(&mut gpu, decode_attention::split(&keys, WHOLE));
    let unit = of.unit().unwrap();
    gpu.attempt(&unit, &broken(&unit, right, wrong), 1, &params)?;
    Ok(relative_error(&step.rounded(), &gpu.f32s(params.out, 2 * 256)))
}

#[test]
fn attention_without_a_fence_a_wait_or_patience_is_caught() {
    if device().is_none() {
        return;
    }
    let full = "wait(memory.full(ring.stage + tile), ring.parity);";
    assert!(attention(full, full).unwrap() < 5e-4);
    let refused = |right: &str, wrong: &str, said: &str| {
        let fault = attention(right, wrong).unwrap_err();
        assert!(fault.contains(said), "without `{}`: {fault}", right.trim());
    };
    refused(full, "", "shared");
    refused("wait(memory.empty(ring.stage), ring.parity ^ 1);", "", "shared");
    refused("scales, now);\n                fence_products();\n", "scales, now);\n", "no wgmma.fence");
    refused("const {\n        fence_products();\n", "const {\n", "no wgmma.fence");
    refused(
        "        wait_for_products<0>();\n        keep_in_place(sum);",
        "",
        "register of a wgmma in flight",
    );
    refused("        publish_writes();\n    }\n};", "    }\n};", "fence");
    let together = "synchronize_first<Tile::CONSUMERS>();\n";
    for then in [
        "        softmax.raise(",
        "#pragma unroll\n        for (int tile = 0; tile < TILES; ++tile) {\n            from",
    ] {
        refused(&format!("{together}{then}"), then, "shared");
    }
}

#[test]
fn attention_with_other_numbers_is_caught() {
    if device().is_none() {
        return;
    }
    let wrong = |right: &str, wrong: &str| {
        let error = attention(right, wrong).unwrap();
        assert!(error.is_nan() || error > 1e-2, "`{wrong}` gives other outputs: {error:.1e}");
    };
    wrong("FROM_72 = 0x54805480", "FROM_72 = 0x54005400");
    wrong("0xd480d480", "0xd400d400");
    wrong("multiply_add(o[block][n], rescale[Tile::column(n)],", "multiply_add(o[block][n], 1.0f,");
    wrong("bool seen = static_cast", "bool seen = true || static_cast");
    wrong("if (visible < Page::TILE) {", "if (false) {");
    wrong("return g / 2 * 16 + warp * 4 + g % 2 * 2;", "return warp * 16 + g * 2;");
}
