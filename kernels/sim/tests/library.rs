//! Library functions and ordinary constructs as the compiler expands them, against the host's arithmetic.

mod fixture;

use fireq_sim::{Memory, Params};
use fixture::{bytes_of, everywhere, f32s, floats, launch, module, noise, ptx, u32s};

/// The error function by its Taylor series, which is exact enough up to 3.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn functions_are_within_a_few_units_of_the_last_place() {
    let x: Vec<f32> = floats(64, 21).into_iter().map(|v| v * 3.0).collect();
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("x", &bytes_of(&x, f32::to_le_bytes));
        let out = memory.alloc("out", 64 * 12 * 4);
        (launch("functions", [2, 1, 1], [32, 1, 1], Params::new().u64(input).u64(out).build()), out)
    };
    let table = [1.5, f64::from(-2.25f32), f64::from(1e-3f32), 40000.0];
    everywhere(&module(&ptx("math")), setup, |memory, out, _| {
        for (i, got) in f32s(memory, *out, 64 * 12).chunks(12).enumerate() {
            let a = f64::from(x[i]);
            let hundred = f64::from(x[i] * 100.0);
            let (third, three, five) = (f64::from(0.3f32), f64::from(x[i] * 3.0), f64::from(x[i] * 5.0));
            let want = [
                a.exp(),
                a.abs().ln(),
                hundred.sin(),
                a.cos(),
                a.tanh(),
                a.abs().powf(f64::from(1.7f32)),
                erf(a),
                a.abs().sqrt(),
                1.0 / (1.0 + (-a).exp()),
                a % third,
                a.round_ties_even() + three.floor() + five.trunc(),
                a / 3.0 + table[i % 4],
            ];
            for (j, (got, want)) in got.iter().zip(want).enumerate() {
                let error = (f64::from(*got) - want).abs();
                assert!(error <= 2e-6 * want.abs().max(0.1), "function {j} of {a}: {got} for {want}");
            }
        }
    });
}

#[test]
fn long_division_local_arrays_and_switches() {
    let n = 150;
    let halves = noise(2 * n, 22);
    let x: Vec<u64> = (0..n).map(|i| u64::from(halves[2 * i]) << 32 | u64::from(halves[2 * i + 1])).collect();
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("x", &bytes_of(&x, u64::to_le_bytes));
        let out = memory.alloc("out", n * 8);
        let params = Params::new().u64(input).u64(out).u32(n as u32).build();
        (launch("integers", [3, 1, 1], [64, 1, 1], params), out)
    };
    let want = |i: usize| {
        let (a, b) = (x[i], x[(i + 1) % n] >> 40 | 1);
        let digits = a.to_string();
        let sum =
            digits.bytes().rev().fold(0u64, |s, d| s.wrapping_mul(11).wrapping_add(u64::from(d - b'0')));
        match a % 7 {
            0 => sum.wrapping_add(a / b),
            1 => sum ^ (a % b),
            2 => sum.wrapping_add(u64::from(a.count_ones()) * 3),
            3 => sum.wrapping_sub(a.leading_zeros().into()),
            4 => sum.wrapping_add((a as i64 / b as i64) as u64),
            5 => sum.wrapping_add(a.reverse_bits()),
            _ => !sum,
        }
    };
    everywhere(&module(&ptx("math")), setup, |memory, out, _| {
        let bytes = memory.read(*out, n * 8).unwrap();
        let got: Vec<u64> =
            bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(got, (0..n).map(want).collect::<Vec<_>>());
    });
}

#[test]
fn atomics_of_several_ctas_add_up() {
    let x = noise(1000, 23);
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("x", &bytes_of(&x, u32::to_le_bytes));
        let bins = memory.alloc_with("bins", &[0; 256]);
        let (done, total) = (memory.alloc_with("done", &[0; 4]), memory.alloc("total", 4));
        let params = Params::new().u64(input).u64(bins).u64(done).u64(total).u32(1000).build();
        (launch("histogram", [3, 1, 1], [128, 1, 1], params), (bins, total))
    };
    everywhere(&module(&ptx("math")), setup, |memory, (bins, total), _| {
        let mut want = [0; 64];
        for v in &x {
            want[*v as usize % 64] += 1;
        }
        assert_eq!(u32s(memory, *bins, 64), want);
        assert_eq!(u32s(memory, *total, 1), [1000]);
    });
}

#[test]
fn ctas_may_wait_for_those_before_them() {
    let setup = |memory: &mut Memory| {
        let (flag, out) = (memory.alloc_with("flag", &[0; 4]), memory.alloc("out", 40));
        (launch("chain", [10, 1, 1], [32, 1, 1], Params::new().u64(flag).u64(out).build()), out)
    };
    everywhere(&module(&ptx("math")), setup, |memory, out, _| {
        assert_eq!(u32s(memory, *out, 10), (0..10).map(|i| 3 * i).collect::<Vec<_>>());
    });
    // A flag that no one sets.
    let never = |memory: &mut Memory| {
        let (flag, out) = (memory.alloc_with("flag", &[9; 4]), memory.alloc("out", 40));
        (launch("chain", [2, 1, 1], [32, 1, 1], Params::new().u64(flag).u64(out).build()), ())
    };
    let found = fixture::faults(&module(&ptx("math")), never);
    assert!(found.iter().all(|f| matches!(f.kind, fireq_sim::FaultKind::Deadlock(_))), "{}", found[0]);
}
