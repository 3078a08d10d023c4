//! Attention of single tokens over pages, against its formula in f64 and against the interpreter: grouped heads, sequences of
//! unequal lengths, tails, splits, and scores of any size.

mod step;

use fireq_kernels::cuda::DecodeAttention;
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::pages::TILE;
use fireq_sim::Accumulator;
use fireq_tests::relative_error;

use super::device::{Device, device};
pub use step::Step;

/// Query heads, kv heads, channels of a head, positions of a page.
pub fn of([heads, kv_heads, head, page]: [usize; 4]) -> DecodeAttention {
    DecodeAttention { heads, kv_heads, head, page }
}

/// As many tiles in each part, and as many parts as that takes.
pub fn split(keys: &[usize], tiles: usize) -> Split {
    let most = keys.iter().max().unwrap().div_ceil(TILE);
    Split { tiles, parts: most.div_ceil(tiles) }
}

/// Sequences of so many keys, with scores multiplied by `scale`, in parts of `tiles`.
fn check(sizes: [usize; 4], keys: &[usize], scale: f32, tiles: usize) {
    let Some(mut gpu) = device() else { return };
    let step = Step::new(of(sizes), keys, scale);
    compare(&mut gpu, &step, tiles);
}

fn compare(gpu: &mut Device, step: &Step, tiles: usize) {
    let found = step.run(gpu, split(&step.keys, tiles));
    let (sizes, keys) = (step.of, &step.keys);
    let error = relative_error(&step.rounded(), &found);
    // A probability in the middle of two codes may go either way: one in a thousand does, by a sixteenth.
    assert!(error < 5e-4, "{sizes:?}, {keys:?} keys in parts of {tiles}: {error:.1e}");
    assert!(found.iter().all(|x| x.is_finite()));
}

/// No split.
pub const WHOLE: usize = 1 << 20;

#[test]
fn lengths_from_one_key_on_and_odd_tails() {
    for keys in [1, 2, 63, 64, 65, 127, 128, 129, 200, 700] {
        check([2, 1, 64, 64], &[keys], 0.3, WHOLE);
    }
}

#[test]
fn query_heads_of_a_kv_head_share_its_keys() {
    for [heads, kv_heads] in [[2, 2], [8, 2], [8, 1], [3, 1], [16, 1], [11, 1]] {
        for head in [64, 128] {
            check([heads, kv_heads, head, 64], &[150], 0.2, WHOLE);
        }
    }
}

#[test]
fn heads_and_pages_of_other_sizes_are_read() {
    check([4, 2, 256, 64], &[130], 0.1, WHOLE);
    check([2, 1, 192, 64], &[100], 0.1, WHOLE);
    check([4, 2, 128, 128], &[300, 70], 0.2, WHOLE);
    check([4, 2, 64, 256], &[500], 0.2, 3);
    check([2, 1, 32, 64], &[75], 0.3, WHOLE);
    check([4, 2, 80, 64], &[300, 9], 0.2, 2);
    check([3, 1, 48, 64], &[130], 0.3, WHOLE);
    check([6, 2, 96, 64], &[200], 0.2, 1);
    check([3, 1, 36, 64], &[129], 0.3, 1);
    check([2, 2, 100, 64], &[70], 0.2, WHOLE);
    check([2, 1, 4, 64], &[70], 0.3, WHOLE);
}

#[test]
fn a_launch_serves_sequences_of_unequal_lengths() {
    check([8, 2, 128, 64], &[1, 700, 64, 65, 333], 0.2, WHOLE);
    check([4, 2, 64, 64], &[1, 700, 64, 129, 333], 0.2, 2);
}

#[test]
fn tokens_of_a_sequence_see_no_later_keys() {
    let Some(mut gpu) = device() else { return };
    for tiles in [WHOLE, 1] {
        compare(&mut gpu, &Step::of_tokens(of([4, 2, 64, 64]), &[66, 130], 0.3, 4), tiles);
    }
}

#[test]
fn parts_of_any_length_give_the_same() {
    let Some(mut gpu) = device() else { return };
    let keys = [700, 90];
    let step = Step::new(of([8, 2, 64, 64]), &keys, 0.3);
    let whole = step.run(&mut gpu, split(&keys, WHOLE));
    for (tiles, parts) in [(6, 2), (2, 6), (1, 11)] {
        let split = split(&keys, tiles);
        assert_eq!(split.parts, parts);
        let error = relative_error(&whole, &step.run(&mut gpu, split));
        assert!(error < 1e-4, "{parts} parts: {error:.1e}");
    }
}

#[test]
fn scores_of_ten_thousand_stay_finite() {
    let keys = [200, 64];
    let step = Step::new(of([4, 1, 128, 64]), &keys, 1000.0);
    let largest = step.interpreted().iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(largest.is_finite());
    for tiles in [WHOLE, 1] {
        check([4, 1, 128, 64], &keys, 1000.0, tiles);
    }
}

/// Whether few keys count or many: the interpreter's f32 scores and sums are not far from f64's, and the kernel's neither.
#[test]
fn the_interpreters_attention_is_the_same() {
    let Some(mut gpu) = device() else { return };
    let keys = [500, 333, 1, 64];
    for (sizes, scale) in [([8, 2, 64, 64], 0.02), ([8, 1, 128, 64], 0.1), ([4, 4, 64, 128], 0.3)] {
        let step = Step::new(of(sizes), &keys, scale);
        for tiles in [WHOLE, 2] {
            let error = relative_error(&step.interpreted(), &step.run(&mut gpu, split(&keys, tiles)));
            assert!(error < 5e-4, "{sizes:?}, scale {scale}: {error:.1e}");
        }
    }
}

/// Tensor cores are reported to keep 13 bits below the leading one of a sum. They add up the products of 256 keys at most, so
/// that it costs less than a tenth of what rounding probabilities does, whether few keys count or many.
#[test]
fn sums_of_few_bits_stay_near() {
    let Some(mut gpu) = device() else { return };
    let (of, keys) = (of([4, 1, 64, 64]), [3000]);
    for scale in [0.001, 0.1] {
        let step = Step::new(of, &keys, scale);
        let params = step.params(&mut gpu, split(&keys, WHOLE));
        let rounding = relative_error(&step.formula(|below, _| below.exp2()), &step.rounded());
        let truncated = Accumulator::Truncated { fraction_bits: 13 };
        gpu.launch_with(truncated, &of.unit().unwrap(), 1, &params);
        let error = relative_error(&step.rounded(), &gpu.f32s(params.out, 4 * 64));
        eprintln!("scale {scale}: sums of 13 bits cost {error:.1e}, rounding {rounding:.1e}");
        assert!(error < rounding / 10.0, "scale {scale}: {error:.1e}, {rounding:.1e}");
    }
}
