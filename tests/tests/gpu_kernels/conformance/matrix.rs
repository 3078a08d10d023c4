//! Matrices in the registers of a warp: `ldmatrix`, `stmatrix`, `mma.sync`.

use fireq_ir::e4m3;
use fireq_sim::{Launch, Params};
use half::bf16;

use super::{Inputs, float};
use crate::device::device;

/// What a kernel makes of the 32-bit inputs.
fn found(kernel: &str, [a, b, c]: [&[u32]; 3]) -> Option<Vec<u32>> {
    let mut gpu = device()?;
    let bytes = |x: &[u32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let [a, b, c] = [("a", a), ("b", b), ("c", c)].map(|(name, x)| gpu.put(name, &bytes(x)));
    let out = gpu.space("out", 4 * 128);
    let launch = Launch {
        kernel: kernel.into(),
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        dynamic_shared: 0,
        params: Params::new().u64(a).u64(b).u64(c).u64(out).build(),
    };
    gpu.launch_text("conformance_matrix", include_str!("matrix.cu"), &launch);
    let words = gpu.bytes(out, 4 * 128);
    Some(words.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
}

fn words(seed: u64) -> Vec<u32> {
    Inputs::random(seed, 256, &[]).a[..128].iter().map(|x| *x as u32).collect()
}

/// Element `column` of a row of 16-bit numbers.
fn element(row: &[u32], column: usize) -> u32 {
    row[column / 2] >> (16 * (column % 2)) & 0xffff
}

#[test]
fn tiles_move_between_rows_and_lanes() {
    let memory = words(40);
    // Lanes 8·i and up have the rows of tile i, in any order.
    let rows: Vec<u32> = (0..32).map(|lane| (lane * 13 + 5) % 32).collect();
    for (transposed, load, store) in
        [(false, "load_matrix", "store_matrix"), (true, "load_matrix_transposed", "store_matrix_transposed")]
    {
        let held = |lane: usize, tile: usize| {
            let at = |row: usize, column: usize| {
                let (row, column) = if transposed { (column, row) } else { (row, column) };
                element(&memory[4 * rows[8 * tile + row] as usize..], column)
            };
            at(lane / 4, lane % 4 * 2) | at(lane / 4, lane % 4 * 2 + 1) << 16
        };
        let registers: Vec<u32> = (0..128).map(|i| held(i / 4, i % 4)).collect();
        let Some(loaded) = found(load, [&memory, &rows, &[0]]) else { return };
        assert_eq!(loaded, registers, "{load}");
        // And back to where it came from.
        assert_eq!(found(store, [&registers, &rows, &[0]]).unwrap(), memory, "{store}");
    }
}

/// Whole numbers so small that their sums are exact in any order, with as few bits as tensor cores keep.
fn small(seed: u64, count: usize) -> Vec<i32> {
    Inputs::random(seed, count.next_multiple_of(256), &[]).a[..count]
        .iter()
        .map(|x| (*x % 15) as i32 - 7)
        .collect()
}

pub fn bf16_of(x: i32) -> Vec<u8> {
    bf16::from_f32(x as f32).to_le_bytes().to_vec()
}

pub fn e4m3_of(x: i32) -> Vec<u8> {
    let code = (0..0x7f).find(|code| e4m3::decode(*code) == x.abs() as f32).unwrap();
    vec![code | u8::from(x < 0) << 7]
}

/// Registers of fragments of 16 × 8 × 32 bytes: four neighbouring bytes each.
#[test]
fn products_of_fragments() {
    for (kernel, k, encode) in [
        ("multiply_bf16", 16, bf16_of as fn(i32) -> Vec<u8>),
        ("multiply_e4m3", 32, e4m3_of as fn(i32) -> Vec<u8>),
    ] {
        let (a, b, c) = (small(41, 16 * k), small(42, 8 * k), small(43, 16 * 8));
        let rows = |x: &[i32]| x.iter().flat_map(|x| encode(*x)).collect::<Vec<u8>>();
        let (a_bytes, b_bytes) = (rows(&a), rows(&b));
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (group, within) = (|lane: usize| lane / 4, |lane: usize| lane % 4);
        let a_registers = |i: usize| {
            let (lane, r) = (i / 4, i % 4);
            word(&a_bytes, 32 * (group(lane) + 8 * (r % 2)) + 4 * within(lane) + 16 * (r / 2))
        };
        let b_registers = |i: usize| word(&b_bytes, 32 * group(i / 2) + 4 * within(i / 2) + 16 * (i % 2));
        let place = |i: usize| (group(i / 4) + 8 * (i % 4 / 2), 2 * within(i / 4) + i % 2);
        let sum = |i: usize| {
            let (m, n) = place(i);
            (c[8 * m + n] + (0..k).map(|j| a[m * k + j] * b[n * k + j]).sum::<i32>()) as f32
        };
        let old = |i: usize| (c[8 * place(i).0 + place(i).1] as f32).to_bits();
        let registers: [Vec<u32>; 3] = [
            (0..128).map(a_registers).collect(),
            (0..64).map(b_registers).collect(),
            (0..128).map(old).collect(),
        ];
        let Some(sums) = found(kernel, registers.each_ref().map(|x| &x[..])) else { return };
        for (i, found) in sums.into_iter().enumerate() {
            assert_eq!(float(found.into()), sum(i), "{kernel}: register {} of lane {}", i % 4, i / 4);
        }
    }
}
