//! Tokens: the same ones as the host takes.

use fireq_kernels::cuda::params::{self, Draw, Params};
use fireq_kernels::cuda::sample;
use fireq_runtime::{Sampling, pick};

use super::device::device;

/// Rows of logits: two of no order, one with many equals, one of zeros of both signs, one with a token far above others.
fn rows(cols: usize) -> Vec<f32> {
    let wave = |seed: usize| (0..cols).map(move |i| ((i * i + seed * i) as f32 * 0.37).sin() * 9.0);
    let equals = (0..cols).map(|i| -1.0 - (i % 7) as f32);
    let zeros = (0..cols).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 });
    let peak = (0..cols).map(|i| if i == cols / 2 { 40.0 } else { (i % 50) as f32 * 0.1 });
    wave(1).chain(wave(5)).chain(equals).chain(zeros).chain(peak).collect()
}

/// The kernel's tokens of rows of `cols`, and the host's.
fn tokens(cols: usize, rows: &[f32], draws: &[Draw]) -> Option<[Vec<u32>; 2]> {
    let mut gpu = device()?;
    let bytes: Vec<u8> = draws.iter().flat_map(Params::bytes).collect();
    let (x, draws_at) = (gpu.put_f32("x", rows), gpu.put("draws", &bytes));
    let index = gpu.space("index", 4 * draws.len());
    gpu.launch(&sample(cols), draws.len(), 0, &params::Sample { x, draws: draws_at, index });
    let bytes = gpu.bytes(index, 4 * draws.len());
    let found = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    Some([found, rows.chunks(cols).zip(draws).map(|(row, draw)| pick(row, draw)).collect()])
}

#[test]
fn the_likeliest_token_is_the_lowest_among_equals() {
    for cols in [1, 33, 257, 1000, 5000] {
        let rows = rows(cols);
        let draws = vec![Sampling::Greedy.draw(0); rows.len() / cols];
        let Some([found, expected]) = tokens(cols, &rows, &draws) else { return };
        assert_eq!(found, expected, "{cols}");
        assert_eq!(found[3], 0, "both zeros are one number");
    }
}

#[test]
fn random_tokens_are_the_hosts() {
    for cols in [3, 33, 1000, 4100] {
        let rows = rows(cols);
        for (n, (temperature, top_p)) in
            [(1.0, 1.0), (0.7, 0.9), (1.5, 0.5), (1.0, 1e-9), (1.0, 0.999_999), (0.01, 0.95)]
                .into_iter()
                .enumerate()
        {
            let sampling = |row| Sampling::Random { temperature, top_p, seed: (row as u64) << 40 | n as u64 };
            let draws: Vec<Draw> =
                (0..rows.len() / cols).map(|row| sampling(row).draw(n as u32 + 5)).collect();
            let Some([found, expected]) = tokens(cols, &rows, &draws) else { return };
            assert_eq!(found, expected, "{cols} columns, temperature {temperature}, top-p {top_p}");
        }
    }
}

/// Rows of one launch may want different things, and draws of the same row differ from step to step.
#[test]
fn every_row_has_a_draw_of_its_own() {
    const COLS: usize = 64;
    let row: Vec<f32> = (0..COLS).map(|i| (i as f32).sqrt()).collect();
    let random = |seed, top_p| Sampling::Random { temperature: 1.0, top_p, seed };
    let draws: Vec<Draw> = (0..24)
        .map(|n| match n % 3 {
            0 => Sampling::Greedy.draw(n),
            1 => random(1, 1.0).draw(n),
            _ => random(u64::MAX, 0.8).draw(n),
        })
        .collect();
    let Some([found, expected]) = tokens(COLS, &row.repeat(draws.len()), &draws) else { return };
    assert_eq!(found, expected);
    assert!(found.iter().step_by(3).all(|token| *token == 63));
    for start in [1, 2] {
        let mut drawn: Vec<u32> = found.iter().skip(start).step_by(3).copied().collect();
        drawn.dedup();
        assert!(drawn.len() > 3, "{found:?}");
    }
}
