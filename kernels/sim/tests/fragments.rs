//! Layouts of matrices in registers and shared memory, against tables written out from the documentation's figures.

mod fixture;
#[path = "fixture/snippet.rs"]
mod snippet;

use fireq_sim::{FaultKind, Memory, Params};
use fixture::{bytes_of, e4m3, everywhere, f32s, faults, floats, launch, module, noise, ptx, without};
use snippet::lanes;

/// Fills the snippet's shared memory with 16-bit values that count up: row r of tile t holds 64·t + 8·r and up.
const TILES: &str = "mov.u32 %r1, shared; shl.b32 %r2, %lane, 4; add.u32 %r1, %r1, %r2;\n\
    mul.lo.u32 %r3, %lane, 0x00080008; add.u32 %r3, %r3, 0x00010000;\n\
    add.u32 %r4, %r3, 0x00020002; add.u32 %r5, %r3, 0x00040004; add.u32 %r6, %r3, 0x00060006;\n\
    st.shared.v4.b32 [%r1], {%r3, %r4, %r5, %r6}; bar.warp.sync -1;\n";

/// Lane, matrix, and the two elements that the lane receives.
type Entry = (usize, usize, [u64; 2]);

fn loads(mode: &str, registers: &str, result: usize, entries: &[Entry]) {
    let body = format!(
        "{TILES} ldmatrix.sync.aligned.m8n8.{mode}.shared.b16 {{{registers}}}, [%r1]; mov.u32 %d, %r{};",
        10 + result
    );
    let got = lanes(&body, [&[], &[], &[]]);
    for (lane, matrix, [low, high]) in entries.iter().filter(|e| e.1 == result) {
        assert_eq!(got[*lane], low | high << 16, "{mode}: lane {lane} of matrix {matrix}");
    }
}

#[test]
fn ldmatrix_spreads_rows_over_lanes() {
    let entries = [
        (0, 0, [0, 1]),
        (1, 0, [2, 3]),
        (5, 0, [10, 11]),
        (31, 0, [62, 63]),
        (0, 1, [64, 65]),
        (30, 1, [124, 125]),
        (13, 3, [192 + 26, 192 + 27]),
    ];
    for result in 0..4 {
        loads("x4", "%r10, %r11, %r12, %r13", result, &entries);
    }
    loads("x1", "%r10", 0, &entries);
    loads("x2", "%r10, %r11", 1, &entries);
    // Transposed: lane 5 holds column 1, rows 2 and 3.
    let entries = [(0, 0, [0, 8]), (5, 0, [17, 25]), (31, 0, [55, 63]), (4, 2, [128 + 1, 128 + 9])];
    for result in [0, 2] {
        loads("x4.trans", "%r10, %r11, %r12, %r13", result, &entries);
    }
}

#[test]
fn stmatrix_is_the_way_back() {
    let body = format!(
        "{TILES} ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {{%r10}}, [%r1]; bar.warp.sync -1;\n\
         stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r1], {{%r10}}; bar.warp.sync -1;\n\
         ld.shared.u32 %d, [%r1+4];"
    );
    let got = lanes(&body, [&[], &[], &[]]);
    assert_eq!(got[..8], [0, 1, 2, 3, 4, 5, 6, 7].map(|row: u64| (8 * row + 2) | (8 * row + 3) << 16));
    let swapped = lanes(
        &body.replace("stmatrix.sync.aligned.m8n8.x1.trans", "stmatrix.sync.aligned.m8n8.x1"),
        [&[], &[], &[]],
    );
    // Row 3 now holds what was column 3; its elements 2 and 3 come from rows 2 and 3.
    assert_eq!(swapped[3], (8 * 2 + 3) | (8 * 3 + 3) << 16);
}

/// Lane, register, slot in the register, and the row (of A) or column (of B), and k of the element.
type Slot = (usize, usize, usize, usize, usize);

/// One 1.0 in A and one in B at a time: the product has a single 1.0 where both have the same k.
fn one_hot(name: &str, one: u64, bits: usize, a: &[Slot], b: &[Slot]) {
    for (lane_a, reg_a, slot_a, row, ka) in a {
        for (lane_b, reg_b, slot_b, column, kb) in b {
            let set = |lane: usize, reg: usize, slot: usize, base: usize| {
                format!(
                    "setp.eq.u32 %p, %lane, {lane}; @%p mov.u32 %r{}, {};\n",
                    base + reg,
                    one << (slot * bits)
                )
            };
            let zero: String = (0..6).map(|i| format!("mov.u32 %r{i}, 0;\n")).collect();
            let body = format!(
                "{zero}{}{}mov.f32 %f0, 0f00000000;\n\
                 mma.sync.aligned.{name} {{%f1, %f2, %f3, %f4}}, {{%r0, %r1, %r2, %r3}}, {{%r4, %r5}}, {{%f0, %f0, %f0, %f0}};\n\
                 cvt.rzi.u32.f32 %r6, %f1; cvt.rzi.u32.f32 %r7, %f2; cvt.rzi.u32.f32 %r8, %f3; cvt.rzi.u32.f32 %r9, %f4;\n\
                 mad.lo.u32 %d, %r7, 10, %r6; mad.lo.u32 %d, %r8, 100, %d; mad.lo.u32 %d, %r9, 1000, %d;",
                set(*lane_a, *reg_a, *slot_a, 0),
                set(*lane_b, *reg_b, *slot_b, 4),
            );
            let mut want = vec![0; 32];
            if ka == kb {
                // c0 and c1 are row lane/4, columns 2·(lane mod 4) and the next; c2 and c3 are eight rows below.
                let digit = [[1, 10], [100, 1000]][row / 8][column % 2];
                want[row % 8 * 4 + column / 2] = digit;
            }
            assert_eq!(lanes(&body, [&[], &[], &[]]), want, "{name}: A {row},{ka}, B {kb},{column}");
        }
    }
}

#[test]
fn mma_fragments_of_bf16_are_as_drawn() {
    let a = [(0, 0, 0, 0, 0), (6, 0, 1, 1, 5), (6, 1, 0, 9, 4), (31, 2, 1, 7, 15), (9, 3, 0, 10, 10)];
    let b = [(0, 0, 0, 0, 0), (22, 0, 1, 5, 5), (30, 0, 0, 7, 4), (3, 1, 1, 0, 15), (13, 1, 0, 3, 10)];
    one_hot("m16n8k16.row.col.f32.bf16.bf16.f32", 0x3f80, 16, &a, &b);
    one_hot("m16n8k16.row.col.f32.f16.f16.f32", 0x3c00, 16, &a, &b);
}

#[test]
fn mma_fragments_of_e4m3_are_as_drawn() {
    let a = [(0, 0, 0, 0, 0), (6, 0, 3, 1, 11), (6, 1, 1, 9, 9), (31, 2, 2, 7, 30), (9, 3, 0, 10, 20)];
    let b = [(0, 0, 0, 0, 0), (22, 0, 3, 5, 11), (30, 0, 1, 7, 9), (3, 1, 2, 0, 30), (13, 1, 0, 3, 20)];
    one_hot("m16n8k32.row.col.f32.e4m3.e4m3.f32", 0x38, 8, &a, &b);
}

fn small(memory: &mut Memory, kernel: &str, a: &[u8], b: &[u8], n: usize) -> (fireq_sim::Launch, u64) {
    let (a, b) = (memory.alloc_with("a", a), memory.alloc_with("b", b));
    let out = memory.alloc("out", 64 * n * 4);
    (launch(kernel, [1; 3], [128, 1, 1], Params::new().u64(a).u64(b).u64(out).build()), out)
}

#[test]
fn wgmma_takes_a_from_registers_and_b_from_core_matrices() {
    let codes = |count, seed| noise(count, seed).into_iter().map(|v| v as u8 & 0xbf).collect::<Vec<u8>>();
    let (a, b) = (codes(64 * 32, 11), codes(16 * 32, 12));
    let setup = |memory: &mut Memory| small(memory, "registers", &a, &b, 16);
    everywhere(&module(&ptx("generic")), setup, |memory, out, _| {
        let dot = |m: usize, n: usize| {
            (0..32).map(|k| f64::from(e4m3(a[m * 32 + k]) * e4m3(b[n * 32 + k]))).sum::<f64>() as f32
        };
        let want: Vec<f32> = (0..64 * 16).map(|i| dot(i / 16, i % 16)).collect();
        assert_eq!(f32s(memory, *out, 64 * 16), want);
    });
}

/// Random bf16 values, as bits and as floats.
fn bf16s(count: usize, seed: u64) -> (Vec<u8>, Vec<f32>) {
    let values: Vec<half::bf16> = floats(count, seed).into_iter().map(half::bf16::from_f32).collect();
    (bytes_of(&values, half::bf16::to_le_bytes), values.into_iter().map(half::bf16::to_f32).collect())
}

#[test]
fn wgmma_transposes_bf16_and_negates() {
    let ((a, va), (b, vb)) = (bf16s(16 * 64, 13), bf16s(16 * 8, 14));
    let setup = |memory: &mut Memory| small(memory, "transposed", &a, &b, 8);
    everywhere(&module(&ptx("generic")), setup, |memory, out, _| {
        for (i, got) in f32s(memory, *out, 64 * 8).into_iter().enumerate() {
            let products = (0..16).map(|k| f64::from(va[k * 64 + i / 8]) * f64::from(vb[k * 8 + i % 8]));
            let want = 1.0 - products.sum::<f64>();
            assert!((f64::from(got) - want).abs() < 1e-6, "{i}: {got} for {want}");
        }
    });
}

#[test]
fn accumulators_may_move_between_products_in_flight() {
    let ((a, va), (b, vb)) = (bf16s(64 * 16, 15), bf16s(8 * 16, 16));
    // Behind the group that writes it, a register moves away, and back once the group is done.
    let text = ptx("generic");
    let (others, narrow) = text.split_at(text.find(".entry narrow").unwrap());
    let wait = "wgmma.wait_group.sync.aligned 0;";
    let around = format!("{{\n.reg .f32 y;\nmov.f32 y, %f1;\n{wait}\nmov.f32 %f1, y;\n}}");
    let behind = format!("{others}{}", fixture::with(narrow, wait, &around));
    for text in [&text, &behind] {
        let setup = |memory: &mut Memory| small(memory, "narrow", &a, &b, 8);
        everywhere(&module(text), setup, |memory, out, _| {
            for (i, got) in f32s(memory, *out, 64 * 8).into_iter().enumerate() {
                let products = (0..16).map(|k| f64::from(va[i / 8 * 16 + k]) * f64::from(vb[i % 8 * 16 + k]));
                let want = 2.0 * products.sum::<f64>();
                assert!((f64::from(got) - want).abs() < 1e-6, "{i}: {got} for {want}");
            }
        });
    }
}

#[test]
fn generic_writes_need_a_fence_before_wgmma() {
    let text = without(&ptx("generic"), "fence.proxy.async");
    for kernel in ["registers", "transposed", "narrow"] {
        let found = faults(&module(&text), |memory| small(memory, kernel, &[0; 2048], &[0; 512], 16));
        assert_eq!(found.len(), fixture::options().len());
        for fault in found {
            assert!(matches!(fault.kind, FaultKind::MissingProxyFence { access: "wgmma", .. }), "{fault}");
        }
    }
}

#[test]
fn operand_a_needs_a_fence_after_arithmetic() {
    // One more operation on a register of A after the fence; a compiler's own moves there are fine.
    let text = fixture::with(
        &ptx("generic"),
        "wgmma.mma_async.sync.aligned.m64n16k32",
        "add.u32 %r152, %r152, 0;\nwgmma.mma_async.sync.aligned.m64n16k32",
    );
    let found = faults(&module(&text), |memory| small(memory, "registers", &[0; 2048], &[0; 512], 16));
    assert_eq!(found.len(), fixture::options().len());
    assert!(found.iter().all(|f| matches!(f.kind, FaultKind::MissingWgmmaFence)), "{}", found[0]);
}
