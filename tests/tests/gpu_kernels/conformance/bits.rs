//! Integers: bytes, logic, shifts and fields.

use super::{Inputs, check};
use crate::device::device;

const BITS: (&str, &str) = ("bits", include_str!("bits.cu"));

/// Byte `i` of the result is byte `choose(i)` of the sixty-four bits of `b` and `a`.
fn chosen(a: u64, b: u64, choose: impl Fn(u64) -> u64) -> u64 {
    let all = (b << 32 | a & 0xffff_ffff).to_le_bytes();
    (0..4).map(|i| u64::from(all[choose(i) as usize % 8]) << (8 * i)).sum()
}

#[test]
fn permutations_of_bytes_in_every_mode() {
    let Some(mut gpu) = device() else { return };
    let mut inputs = Inputs::random(10, 1024, &[0, 1, 2, 3, 0x3210, 0x7654, 0xfedc, 0x80ff_7f01]);
    for (i, c) in inputs.c.iter_mut().enumerate().skip(512) {
        *c = *c << 16 | ((i as u64 * 0x1235) & 0xffff);
    }
    check(&mut gpu, BITS, "permute", &inputs, |[a, b, c]| {
        let signs = (0..4).map(|i| {
            let nibble = c >> (4 * i) & 15;
            let byte = chosen(a, b, |_| nibble & 7) & 0xff;
            let spread = if byte & 0x80 == 0 { 0 } else { 0xff };
            (if nibble & 8 == 0 { byte } else { spread }) << (8 * i)
        });
        signs.sum()
    });
    // Rows of the instruction's tables: bytes 3 to 0 for selectors 0 to 3.
    let tables: [(&str, [u16; 4]); 6] = [
        ("permute_f4e", [0x3210, 0x4321, 0x5432, 0x6543]),
        ("permute_b4e", [0x5670, 0x6701, 0x7012, 0x0123]),
        ("permute_rc8", [0x0000, 0x1111, 0x2222, 0x3333]),
        ("permute_ecl", [0x3210, 0x3211, 0x3222, 0x3333]),
        ("permute_ecr", [0x0000, 0x1110, 0x2210, 0x3210]),
        ("permute_rc16", [0x1010, 0x3232, 0x1010, 0x3232]),
    ];
    for (kernel, rows) in tables {
        check(&mut gpu, BITS, kernel, &inputs, |[a, b, c]| {
            chosen(a, b, |i| u64::from(rows[c as usize & 3] >> (4 * i) & 7))
        });
    }
}

#[test]
fn logic_of_three_operands() {
    let Some(mut gpu) = device() else { return };
    let inputs = Inputs::random(11, 512, &[0, 0xffff_ffff, 0x5555_5555]);
    for (kernel, table) in [("logic_96", 0x96u32), ("logic_e8", 0xe8), ("logic_1b", 0x1b)] {
        check(&mut gpu, BITS, kernel, &inputs, |[a, b, c]| {
            let bit = |i: u32| (a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1;
            (0..32).map(|i| u64::from(table >> bit(i) & 1) << i).sum()
        });
    }
}

#[test]
fn shifts_and_fields() {
    let Some(mut gpu) = device() else { return };
    let mut inputs = Inputs::random(12, 1024, &[0, 1, 31, 32, 33, 64, 255, 0x8000_0000]);
    // Positions and lengths are small more often than not.
    for (b, c) in inputs.b.iter_mut().zip(&mut inputs.c).step_by(2) {
        (*b, *c) = (*b & 0x3f, *c & 0x3f);
    }
    let low = |x: u64| x & 0xffff_ffff;
    let both = |a: u64, b: u64| b << 32 | low(a);
    check(&mut gpu, BITS, "funnel_left_wrap", &inputs, |[a, b, c]| both(a, b) << (c & 31) >> 32);
    check(&mut gpu, BITS, "funnel_right_clamp", &inputs, |[a, b, c]| low(both(a, b) >> low(c).min(32)));
    check(&mut gpu, BITS, "shift_left", &inputs, |[a, _, c]| low(low(a) << low(c).min(32)));
    check(&mut gpu, BITS, "shift_signed", &inputs, |[a, _, c]| low((a as i32 >> low(c).min(31)) as u64));
    check(&mut gpu, BITS, "leading_zeros", &inputs, |[a, ..]| (a as u32).leading_zeros().into());
    check(&mut gpu, BITS, "reversed", &inputs, |[a, ..]| (a as u32).reverse_bits().into());
    // Lengths and positions are one byte; past the end a signed field repeats the sign.
    let field = |[a, b, c]: [u64; 3], signed: bool| {
        let (position, length) = (b & 255, c & 255);
        let sign = match (signed && length > 0, a >> (position + length).saturating_sub(1).min(31) & 1) {
            (true, 1) => u32::MAX,
            _ => 0,
        };
        let bit = |i: u64| {
            if i < length && position + i < 32 { (a >> (position + i)) as u32 & 1 } else { sign & 1 }
        };
        u64::from((0..32).map(|i| bit(i) << i).sum::<u32>())
    };
    check(&mut gpu, BITS, "field_unsigned", &inputs, |of| field(of, false));
    check(&mut gpu, BITS, "field_signed", &inputs, |of| field(of, true));
}
