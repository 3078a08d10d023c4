use super::tests::Random;
use super::*;

fn finite(q: &Quantized) -> bool {
    q.dequantize().iter().chain(q.scales.iter().flatten()).all(|v| v.is_finite())
}

fn calibrated(x: &[f32], cols: usize) -> Hessian {
    let mut hessian = Hessian::new(cols, WINDOW, 128);
    hessian.add_rows(x, x.len() / cols);
    hessian
}

#[test]
fn nothing_gives_nothing() {
    for method in [Method::paper(), Method::nearest(), Method::searched(), Method::compensated()] {
        let (none, summary) = quantize(&[], 128, 128, &method, Some(&calibrated(&[], 128)));
        assert_eq!((none.codes.len(), none.rows(), summary.error), (0, 0, 0.0));
        let x = Random(1).normals(128 * 200);
        let (zeros, summary) = quantize(&[0.0; 3 * 128], 128, 128, &method, Some(&calibrated(&x, 128)));
        assert_eq!((zeros.codes, summary.error, summary.underflows), (vec![0; 3 * 128], 0.0, 0));
        assert_eq!((summary.outer_min, summary.outer_max), (1.0, 1.0));
    }
}

#[test]
fn channels_without_input_do_no_harm() {
    let (cols, rows) = (256, 20);
    let mut x = Random(1).normals(cols * 500);
    x.chunks_mut(cols).for_each(|row| (0..cols).step_by(3).for_each(|c| row[c] = 0.0));
    let w = Random(2).normals(cols * rows);
    let (q, summary) = quantize(&w, cols, 128, &Method::compensated(), Some(&calibrated(&x, cols)));
    assert!(finite(&q));
    assert!(summary.error < 0.15, "{}", summary.error);
    let (q, summary) =
        quantize(&w, cols, 128, &Method::compensated(), Some(&calibrated(&vec![0.0; cols * 9], cols)));
    assert!(finite(&q));
    assert_eq!((summary.error, summary.damping), (0.0, 0.0));
}

#[test]
fn inputs_that_are_not_finite_count_as_none() {
    let w = Random(2).normals(128 * 4);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let mut x = Random(1).normals(128 * 10);
        x[5] = bad;
        let found = quantize(&w, 128, 128, &Method::compensated(), Some(&calibrated(&x, 128)));
        assert_eq!(found, quantize(&w, 128, 128, &Method::compensated(), None));
    }
}

#[test]
fn one_channel_is_exact_at_its_extreme() {
    let w = [0.5, -3.0, 0.0, 1e-20];
    for method in [Method::nearest(), Method::searched(), Method::compensated()] {
        let (q, summary) = quantize(&w, 1, 128, &method, Some(&calibrated(&[1.0, -2.0], 1)));
        for (v, w) in q.dequantize().into_iter().zip(w) {
            assert!((v - w).abs() <= 1e-6 * w.abs(), "{v} for {w}");
        }
        assert!(summary.error < 1e-6);
    }
}

#[test]
fn an_outlier_among_inputs_and_weights_stays_in_range() {
    let (cols, rows) = (512, 24);
    let mut x = Random(1).normals(cols * 800);
    x.chunks_mut(cols).for_each(|row| row[77] += row[78] * 300.0);
    let mut w = Random(2).normals(cols * rows);
    w[3] = 1e4;
    let (q, summary) = quantize(&w, cols, 128, &Method::compensated(), Some(&calibrated(&x, cols)));
    assert!(finite(&q) && summary.error.is_finite());
    assert!(q.scales[0].iter().all(|scale| scale.abs() <= 64.0));
}

#[test]
fn the_papers_power_of_two_is_the_smallest_without_underflow() {
    for (absmax, power) in [(0.02, 1.0), (0.01, 2.0), (0.001, 16.0), (1e-9, 16384.0)] {
        let w: Vec<f32> = Random(1).normals(4 * 128).iter().map(|v| v.clamp(-1.0, 1.0) * absmax).collect();
        let (q, summary) = quantize(&w, 128, 128, &Method::paper(), None);
        assert_eq!(q.scales[1], [1.0 / power; 4], "{absmax}");
        assert_eq!(summary.underflows, if absmax == 1e-9 { 4 } else { 0 });
    }
    let (large_and_small, summary) = quantize(&[300.0, 0.001], 1, 128, &Method::paper(), None);
    assert_eq!((large_and_small.scales[1][0], summary.underflows), (1.0, 1));
}

#[test]
fn small_groups_beside_large_ones_underflow_and_are_counted() {
    let (_, summary) = quantize(&[1.0, 1e-6, 0.0], 3, 1, &Method::searched(), None);
    assert_eq!(summary.underflows, 1);
}
