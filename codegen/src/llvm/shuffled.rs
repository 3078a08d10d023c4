//! Codes under E4M3 scales to numbers by shuffles of bytes and words: a value has four significant bits, and is exact as bf16.

use inkwell::module::Linkage;
use inkwell::types::VectorType;
use inkwell::values::{ArrayValue, IntValue, PointerValue, VectorValue};

use super::codes::value;
use super::emit::{Emit, ok};

/// Codes of a block.
const CODES: u32 = 32;

type V<'c> = VectorValue<'c>;

impl<'c> Emit<'c, '_> {
    /// Twice the 16 values of codes under scale `index`, as bf16: of an index of five bits the highest then has no effect.
    pub fn table_of_pairs(&self, scales: PointerValue<'c>, index: IntValue<'c>) -> V<'c> {
        let i16 = self.ctx.i16_type();
        let row = |byte| {
            let words = (0..CODES).map(|n| i16.const_int(u64::from(top(byte, n as u8 % 16)), false));
            i16.const_array(&words.collect::<Vec<_>>())
        };
        let table = self.rows_of_scales("bf16_under_e4m3", row);
        self.load(i16.vec_type(CODES), self.row(table, self.byte(scales, index), 64), 64).into_vector_value()
    }

    /// The high bytes of the values of codes under scale `index` as bf16, and their low bytes.
    pub fn table_of_bytes(&self, scales: PointerValue<'c>, index: IntValue<'c>) -> [V<'c>; 2] {
        let i8 = self.ctx.i8_type();
        let row = |byte| {
            let halves =
                [8, 0].into_iter().flat_map(|shift| (0..16).map(move |n| top(byte, n) >> shift & 255));
            i8.const_array(&halves.map(|half| i8.const_int(u64::from(half), false)).collect::<Vec<_>>())
        };
        let table = self.row(self.rows_of_scales("bytes_under_e4m3", row), self.byte(scales, index), 32);
        [0, 16].map(|first| {
            let half = self.load(i8.vec_type(16), self.at(table, self.index(first)), 16).into_vector_value();
            self.shuffle(half, half, |n| n % 16, CODES)
        })
    }

    /// The 32 numbers of a block of codes as bf16, in the order of channels.
    pub fn decode_pairs(&self, block: PointerValue<'c>, table: V<'c>) -> V<'c> {
        let words = self.ctx.i16_type().vec_type(CODES);
        self.lookup_pairs(table, ok(self.b.build_int_z_extend(self.nibbles(block), words, "")))
    }

    /// The numbers of four blocks of codes as bf16: the nth of the four codes in each word.
    pub fn decode_words(&self, codes: PointerValue<'c>, table: V<'c>) -> [V<'c>; 4] {
        let line = self.load(self.ctx.i32_type().vec_type(16), codes, 1).into_vector_value();
        [0, 4, 8, 12].map(|bits| {
            // What a doubleword's upper half leaves in its lower one is above the four bits.
            let index = self.shr(line, bits);
            let index = ok(self.b.build_bit_cast(index, self.ctx.i16_type().vec_type(CODES), ""));
            self.lookup_pairs(table, index.into_vector_value())
        })
    }

    /// bf16 of a table by the low four bits of words.
    fn lookup_pairs(&self, table: V<'c>, index: V<'c>) -> V<'c> {
        let args = [table.into(), index.into()];
        let values = self.intrinsic("llvm.x86.avx512.permvar.hi.512", &[], &args);
        ok(self.b.build_bit_cast(values, self.ctx.bf16_type().vec_type(CODES), "")).into_vector_value()
    }

    /// The 32 numbers of a block of codes as f32: of each 16 bytes the even ones of the first eight, the odd ones, and the same
    /// of the others.
    pub fn decode_bytes(&self, block: PointerValue<'c>, table: [V<'c>; 2]) -> [V<'c>; 4] {
        let i8 = self.ctx.i8_type();
        let mask = VectorType::const_vector(&[i8.const_int(15, false); CODES as usize]);
        let nibbles = ok(self.b.build_and(self.nibbles(block), mask, ""));
        let [high, low] = table.map(|table| {
            let args = [table.into(), nibbles.into()];
            self.intrinsic("llvm.x86.avx2.pshuf.b", &[], &args).into_vector_value()
        });
        let dwords = self.ctx.i32_type().vec_type(8);
        let splat = |bits| VectorType::const_vector(&[self.ctx.i32_type().const_int(bits, false); 8]);
        let floats =
            |v| ok(self.b.build_bit_cast(v, self.ctx.f32_type().vec_type(8), "")).into_vector_value();
        let [first, second] = [0, 8].map(|skip| {
            let both = self.shuffle(low, high, |n| n % 2 * CODES + n / 16 * 16 + skip + n % 16 / 2, CODES);
            let both = ok(self.b.build_bit_cast(both, dwords, "")).into_vector_value();
            let even: V<'c> = ok(self.b.build_left_shift(both, splat(16), ""));
            let odd: V<'c> = ok(self.b.build_and(both, splat(0xffff_0000), ""));
            [floats(even), floats(odd)]
        });
        [first[0], first[1], second[0], second[1]]
    }

    /// The low nibbles of a block of 16 bytes and then the high ones, each with some bits above that are another's.
    fn nibbles(&self, block: PointerValue<'c>) -> V<'c> {
        let i32 = self.ctx.i32_type();
        let bytes = self.load(i32.vec_type(4), block, 1).into_vector_value();
        let twice = self.shuffle(bytes, bytes, |n| n % 4, 8);
        let shifts: Vec<_> = (0..8).map(|n| i32.const_int(n / 4 * 4, false)).collect();
        let shifted: V<'c> =
            ok(self.b.build_right_shift(twice, VectorType::const_vector(&shifts), false, ""));
        ok(self.b.build_bit_cast(shifted, self.ctx.i8_type().vec_type(CODES), "")).into_vector_value()
    }

    fn byte(&self, scales: PointerValue<'c>, index: IntValue<'c>) -> IntValue<'c> {
        let byte = self.load(self.ctx.i8_type(), self.at(scales, index), 1).into_int_value();
        ok(self.b.build_int_z_extend(byte, self.ctx.i64_type(), ""))
    }

    /// A constant with a row for each E4M3 scale, made when first needed.
    pub fn rows_of_scales(&self, name: &str, row: impl Fn(u8) -> ArrayValue<'c>) -> PointerValue<'c> {
        if let Some(global) = self.module.get_global(name) {
            return global.as_pointer_value();
        }
        let rows: Vec<_> = (0..=255).map(row).collect();
        let ty = rows[0].get_type();
        let global = self.module.add_global(ty.array_type(256), None, name);
        global.set_initializer(&ty.const_array(&rows));
        global.set_constant(true);
        global.set_linkage(Linkage::Private);
        global.set_alignment(64);
        global.as_pointer_value()
    }
}

/// A value's upper 16 bits, which are all that it has.
fn top(scale: u8, nibble: u8) -> u32 {
    value(scale, nibble).to_bits() >> 16
}
