//! What the parts take, in release mode, for the shapes of an 8-billion-parameter model:
//! `cargo test --release -p fireq-passes weights::bench -- --ignored --nocapture`

use std::time::Instant;

use super::cholesky::decompose;
use super::gemm::{View, add_product};
use super::tests::Random;
use super::{Hessian, Method, WINDOW, quantize};

const K: usize = 4096;

fn time<T>(what: &str, operations: f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:34} {seconds:7.3} s  {:7.1} GFLOP/s", operations / seconds / 1e9);
    result
}

/// What there is to reach: independent products of 1024³ on all threads.
fn peak() {
    let a = vec![1.0; 1024 * 1024];
    let threads = rayon::current_num_threads();
    time("sgemm, one per thread", 8.0 * 2.0f64.powi(31) * threads as f64, || {
        rayon::broadcast(|_| {
            let (mut c, view) = (vec![0.0; a.len()], View::new(&a, 1024, 1024, 1024));
            (0..8).for_each(|_| add_product(&mut c, 1.0, view, view));
            std::hint::black_box(c);
        })
    });
}

#[test]
#[ignore = "a measurement, in release mode"]
fn parts() {
    let (k, rows) = (K as f64, 2048);
    let x = Random(1).normals(rows * K);
    let w = Random(2).normals(K * K);
    println!("K = {K}, {} threads", rayon::current_num_threads());
    peak();
    let mut hessian = Hessian::new(K, WINDOW, 128);
    time("Hessian of 2048 rows", k * k * rows as f64, || hessian.add_rows(&x, rows));
    let (products, moments) = (hessian.products(0), hessian.diagonal());
    time("Cholesky factor", k * k * k / 3.0, || {
        decompose(&[128; K / 128], 0.01, &moments, &products).is_some()
    });
    let nearest = time("4096 x 4096, nearest", 0.0, || quantize(&w, K, 128, &Method::nearest(), None));
    let searched =
        time("4096 x 4096, searched", 0.0, || quantize(&w, K, 128, &Method::searched(), Some(&hessian)));
    let best = Method::compensated();
    let best = time("4096 x 4096, compensated", k * k * k * 4.0 / 3.0, || {
        quantize(&w, K, 128, &best, Some(&hessian))
    });
    println!("errors {} {} {}", nearest.1.error, searched.1.error, best.1.error);
}
