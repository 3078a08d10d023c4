//! Kernels as NVRTC compiles them, against results computed on the host.

mod fixture;

use fireq_sim::{Accumulator, Launch, Memory, Options, Params, Stats, Swizzle, TensorMap, run};
use fixture::{bytes_of, e4m3, everywhere, f32s, floats, launch, module, noise, ptx, u32s};

fn bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

#[test]
fn rms_norm_and_quantization_agree_with_the_host() {
    let (rows, n) = (3usize, 1096usize);
    let x: Vec<f32> =
        floats(rows * n, 1).into_iter().map(|v| half::bf16::from_f32(v * 3.0).to_f32()).collect();
    let weight = floats(n, 2);
    let setup = |memory: &mut Memory| {
        let xs = memory.alloc_with("x", &bytes_of(&x, |v| bf16(v).to_le_bytes()));
        let ws = memory.alloc_with("weight", &bytes_of(&weight, f32::to_le_bytes));
        let (q, scale) = (memory.alloc("q", rows * n), memory.alloc("scale", rows * 4));
        let params = Params::new().u64(xs).u64(ws).u64(q).u64(scale).u32(n as u32).build();
        (launch("rms_norm", [rows as u32, 1, 1], [128, 1, 1], params), (q, scale))
    };
    everywhere(&module(&ptx("norm")), setup, |memory, (q, scale), stats| {
        let codes = memory.read(*q, rows * n).unwrap();
        for (row, s) in f32s(memory, *scale, rows).into_iter().enumerate() {
            let values = &x[row * n..][..n];
            let mean = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            let want: Vec<f64> =
                values.iter().zip(&weight).map(|(v, w)| f64::from(v * w) / (mean + 1e-5).sqrt()).collect();
            let top = want.iter().fold(0f64, |t, v| t.max(v.abs()));
            assert!((f64::from(s) - top / 448.0).abs() < 1e-5 * top, "scale of row {row}");
            for (want, code) in want.iter().zip(&codes[row * n..]) {
                let got = f64::from(e4m3(*code) * s);
                // Half a unit of three mantissa bits, or half the smallest step.
                assert!((got - want).abs() <= want.abs() / 15.9 + f64::from(s) / 1000.0, "{got} for {want}");
            }
        }
        assert_eq!(stats.global_written, (rows * n + rows * 4) as u64);
    });
}

fn transpose(text: &str, rows: usize, cols: usize) -> Stats {
    let data = noise(rows * cols, 3);
    let counted = std::cell::Cell::new(Stats::default());
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("in", &bytes_of(&data, u32::to_le_bytes));
        let out = memory.alloc("out", rows * cols * 4);
        let params = Params::new().u64(input).u64(out).u32(rows as u32).u32(cols as u32).build();
        let grid = [cols.div_ceil(32) as u32, rows.div_ceil(32) as u32, 1];
        (launch("transpose", grid, [32, 8, 1], params), out)
    };
    everywhere(&module(text), setup, |memory, out, stats| {
        let want: Vec<u32> = (0..rows * cols).map(|i| data[i % rows * cols + i / rows]).collect();
        assert_eq!(u32s(memory, *out, rows * cols), want);
        counted.set(*stats);
    });
    counted.get()
}

#[test]
fn transposition_handles_odd_edges() {
    transpose(&ptx("transpose"), 70, 37);
    transpose(&ptx("transpose"), 1, 1);
}

#[test]
fn padding_removes_bank_conflicts() {
    assert_eq!(transpose(&ptx("transpose"), 32, 32).bank_conflicts, 0);
    // Each of 32 column reads takes 32 cycles instead of one.
    assert_eq!(transpose(&ptx("transpose.pitch32"), 32, 32).bank_conflicts, 32 * 31);
}

#[test]
fn transposition_touches_every_sector_once() {
    let stats = transpose(&ptx("transpose"), 64, 64);
    assert_eq!((stats.global_read, stats.global_written), (64 * 64 * 4, 64 * 64 * 4));
    assert_eq!((stats.sectors, stats.sectors_needed), (2 * 64 * 64 * 4 / 32, 2 * 64 * 64 * 4 / 32));
}

#[test]
fn a_ring_of_bulk_copies_delivers_every_chunk() {
    let module = module(&ptx("pipeline"));
    for chunks in [1usize, 2, 3, 11] {
        let data = floats(chunks * 128, 4);
        let setup = |memory: &mut Memory| {
            let input = memory.alloc_with("in", &bytes_of(&data, f32::to_le_bytes));
            let out = memory.alloc("out", 128 * 4);
            let params = Params::new().u64(input).u64(out).u32(chunks as u32).build();
            (launch("pipeline", [1, 1, 1], [160, 1, 1], params), out)
        };
        everywhere(&module, setup, |memory, out, _| {
            let sum = |i: usize| (0..chunks).fold(0f32, |s, c| s + data[c * 128 + i]);
            assert_eq!(f32s(memory, *out, 128), (0..128).map(sum).collect::<Vec<_>>());
        });
    }
}

fn operand(memory: &mut Memory, name: &str, codes: &[u8], rows: usize, k: usize) -> [u8; 128] {
    let map = TensorMap {
        address: memory.alloc_with(name, codes),
        rank: 2,
        element_bytes: 1,
        dims: [k as u64, rows as u64, 0, 0, 0],
        strides: [k as u64, 0, 0, 0],
        block: [128, 64, 0, 0, 0],
        swizzle: Swizzle::B128,
    };
    map.encode().unwrap()
}

/// Codes without NaN.
fn codes(count: usize, seed: u64) -> Vec<u8> {
    let finite = |v: u32| if v as u8 & 0x7f == 0x7f { 0 } else { v as u8 };
    noise(count, seed).into_iter().map(finite).collect()
}

#[test]
fn a_tile_of_wgmma_equals_the_product() {
    // Neither a multiple of the tile nor of the step.
    let (m, n, k) = (70usize, 40usize, 304usize);
    let (a, b) = (codes(m * k, 5), codes(n * k, 6));
    let setup = |memory: &mut Memory| {
        let (map_a, map_b) = (operand(memory, "a", &a, m, k), operand(memory, "b", &b, n, k));
        let out = memory.alloc("out", m * n * 4);
        let params = Params::new().bytes(64, &map_a).bytes(64, &map_b).u64(out);
        let params = params.u32(m as u32).u32(n as u32).u32(k as u32).build();
        let grid = [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1];
        let plain = launch("gemm", grid, [160, 1, 1], params);
        (Launch { dynamic_shared: 4 * 64 * 128, ..plain }, out)
    };
    everywhere(&module(&ptx("gemm")), setup, |memory, out, stats| {
        for (i, got) in f32s(memory, *out, m * n).into_iter().enumerate() {
            let (row, col) = (i / n, i % n);
            let products = (0..k).map(|j| f64::from(e4m3(a[row * k + j])) * f64::from(e4m3(b[col * k + j])));
            let (want, size) = products.fold((0.0, 0.0), |(s, t), p: f64| (s + p, t + p.abs()));
            assert!((f64::from(got) - want).abs() <= size * 1e-6, "{row},{col}: {got} for {want}");
        }
        assert_eq!(stats.tensor_macs, 2 * 64 * 64 * 3 * 128);
    });
}

#[test]
fn a_tile_leaves_through_a_tensor_store() {
    // 40 of the 48 rows exist, and 60 of the 64 columns.
    let data = floats(48 * 64, 7);
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("in", &bytes_of(&data, f32::to_le_bytes));
        let out = memory.alloc("out", 40 * 60 * 4);
        let map = TensorMap {
            address: out,
            rank: 2,
            element_bytes: 4,
            dims: [60, 40, 0, 0, 0],
            strides: [240, 0, 0, 0],
            block: [64, 16, 0, 0, 0],
            swizzle: Swizzle::None,
        };
        let params = Params::new().bytes(64, &map.encode().unwrap()).u64(input).build();
        (launch("store", [3, 1, 1], [128, 1, 1], params), out)
    };
    everywhere(&module(&ptx("store")), setup, |memory, out, _| {
        let want: Vec<f32> = (0..40 * 60).map(|i| 2.0 * data[i / 60 * 64 + i % 60]).collect();
        assert_eq!(f32s(memory, *out, 40 * 60), want);
    });
}

#[test]
fn a_cluster_shares_a_multicast_and_its_memory() {
    let data = noise(2 * 64, 8);
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("in", &bytes_of(&data, u32::to_le_bytes));
        let out = memory.alloc("out", 4 * 64 * 4);
        let params = Params::new().u64(input).u64(out).build();
        (launch("cluster", [4, 1, 1], [64, 1, 1], params), out)
    };
    everywhere(&module(&ptx("cluster")), setup, |memory, out, _| {
        let want = |i: usize| data[i / 128 * 64 + i % 64].wrapping_add(((i / 64 % 2) ^ 1) as u32);
        assert_eq!(u32s(memory, *out, 4 * 64), (0..4 * 64).map(want).collect::<Vec<_>>());
    });
}

#[test]
fn a_seed_decides_everything() {
    let data = noise(2 * 64, 9);
    let stats = |seed| {
        let mut memory = Memory::new();
        let input = memory.alloc_with("in", &bytes_of(&data, u32::to_le_bytes));
        let out = memory.alloc("out", 4 * 64 * 4);
        let plain = launch("cluster", [4, 1, 1], [64, 1, 1], Params::new().u64(input).u64(out).build());
        run(&module(&ptx("cluster")), &plain, &mut memory, &Options { seed, ..Options::default() }).unwrap()
    };
    assert_eq!(stats(5), stats(5));
    // Waits poll more or less often.
    assert!((0..8).any(|seed| stats(seed) != stats(5)));
}

#[test]
fn one_thread_may_release_a_stage_for_its_warpgroup() {
    // The last wait of any warp covers the products of all four, so one arrival of 128 suffices.
    let text = fixture::with(&ptx("gemm"), "], 128;", "], 1;");
    let arrive = "mbarrier.arrive.shared::cta.b64 _,";
    let text = fixture::with(&text, arrive, &format!("@%release {arrive}"));
    let text = fixture::with(
        &text,
        ".reg .pred \t%p<",
        ".reg .pred %release; .reg .b32 %thread; mov.u32 %thread, %tid.x; setp.eq.u32 %release, %thread, 64;\n.reg .pred \t%p<",
    );
    let (k, ones) = (512usize, vec![0x38; 64 * 512]);
    let setup = |memory: &mut Memory| {
        let (map_a, map_b) = (operand(memory, "a", &ones, 64, k), operand(memory, "b", &ones, 64, k));
        let out = memory.alloc("out", 64 * 64 * 4);
        let params = Params::new().bytes(64, &map_a).bytes(64, &map_b).u64(out);
        let params = params.u32(64).u32(64).u32(k as u32).build();
        (Launch { dynamic_shared: 4 * 64 * 128, ..launch("gemm", [1, 1, 1], [160, 1, 1], params) }, out)
    };
    everywhere(&module(&text), setup, |memory, out, _| {
        assert_eq!(f32s(memory, *out, 64 * 64), vec![512.0; 64 * 64]);
    });
}

#[test]
fn sums_of_eight_bit_products_may_be_cut_off() {
    // 16 once, and 2⁻⁹ in every other place: thirteen bits below 16.
    let (k, ones) = (128usize, vec![0x38; 64 * 128]);
    let small: Vec<u8> = (0..64 * k).map(|i| if i % k == 0 { 0x58 } else { 0x01 }).collect();
    let sum = |accumulator| {
        let mut memory = Memory::new();
        let (a, b) = (operand(&mut memory, "a", &ones, 64, k), operand(&mut memory, "b", &small, 64, k));
        let out = memory.alloc("out", 64 * 64 * 4);
        let params = Params::new().bytes(64, &a).bytes(64, &b).u64(out).u32(64).u32(64).u32(k as u32).build();
        let launch = Launch { dynamic_shared: 4 * 64 * 128, ..launch("gemm", [1; 3], [160, 1, 1], params) };
        let options = Options { accumulator, ..Options::default() };
        run(&module(&ptx("gemm")), &launch, &mut memory, &options).unwrap();
        let sums = f32s(&memory, out, 64 * 64);
        assert!(sums.iter().all(|sum| *sum == sums[0]));
        sums[0]
    };
    assert_eq!(sum(Accumulator::Exact), 16.0 + 127.0 / 512.0);
    assert_eq!(sum(Accumulator::Truncated { fraction_bits: 13 }), 16.0 + 127.0 / 512.0);
    assert_eq!(sum(Accumulator::Truncated { fraction_bits: 12 }), 16.0);
}
