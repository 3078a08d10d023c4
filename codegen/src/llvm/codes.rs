//! Quantization codes to numbers: the 16 values that codes can stand for under a scale, and blocks of codes looked up.

use inkwell::values::{IntValue, PointerValue, VectorValue};

use fireq_ir::{DType, quant};

use super::emit::{Emit, LANES, ok};
use super::target::Isa;

/// The name of the global with the values of all codes under all 256 E4M3 scales.
const TABLES: &str = "i4_under_e4m3";

/// The values of the codes 0..7, −8..−1, in this order: a code's nibble is its index.
pub(super) enum Table<'c> {
    /// In a vector register.
    Register(VectorValue<'c>),
    /// In memory, for targets without a shuffle by variable indices.
    Memory(PointerValue<'c>),
}

impl<'c> Emit<'c, '_> {
    /// The table for scale `index` of an array of scales of `dtype`.
    pub fn table(&self, scales: PointerValue<'c>, index: IntValue<'c>, dtype: DType) -> Table<'c> {
        if dtype == DType::E4M3 {
            let byte = self.load(self.ctx.i8_type(), self.at(scales, index), 1).into_int_value();
            let byte = ok(self.b.build_int_z_extend(byte, self.ctx.i64_type(), ""));
            let address = self.row(self.tables(), byte, 64);
            return if self.isa == Isa::Generic {
                Table::Memory(address)
            } else {
                Table::Register(self.get(address))
            };
        }
        let scale = self.load_floats(scales, index, dtype, 1);
        let codes: Vec<_> = (0..16).map(|n| self.f32(code_of_nibble(n))).collect();
        let codes = inkwell::types::VectorType::const_vector(&codes);
        let values = self.fmul(codes, self.splat(self.first(scale).into_float_value()));
        if self.isa != Isa::Generic {
            return Table::Register(values);
        }
        let slot = self.slot(self.vec_type());
        self.set(slot, values);
        Table::Memory(slot)
    }

    /// The 32 numbers of a block of codes: the first 16, the last 16.
    pub fn decode_block(&self, block: PointerValue<'c>, table: &Table<'c>) -> [VectorValue<'c>; 2] {
        let bytes = self.load(self.ctx.i8_type().vec_type(LANES), block, 1).into_vector_value();
        let bytes = ok(self.b.build_int_z_extend(bytes, self.ctx.i32_type().vec_type(LANES), ""));
        // `vpermps` on 16 lanes looks at the low four bits of an index only.
        let low = if self.is_avx512() { bytes } else { self.and(bytes, 15) };
        [low, self.shr(bytes, 4)].map(|nibbles| self.lookup(table, nibbles))
    }

    fn is_avx512(&self) -> bool {
        matches!(self.isa, Isa::Avx512 | Isa::Avx512Bf16)
    }

    fn lookup(&self, table: &Table<'c>, nibbles: VectorValue<'c>) -> VectorValue<'c> {
        match table {
            Table::Memory(address) => self.lookup_in_memory(*address, nibbles),
            Table::Register(values) if self.is_avx512() => {
                let args = [(*values).into(), nibbles.into()];
                self.intrinsic("llvm.x86.avx512.permvar.sf.512", &[], &args).into_vector_value()
            }
            Table::Register(values) => self.lookup_avx2(*values, nibbles),
        }
    }

    /// Eight lanes at a time; `vpermps` looks at three bits of the index, the fourth selects between two lookups.
    fn lookup_avx2(&self, values: VectorValue<'c>, nibbles: VectorValue<'c>) -> VectorValue<'c> {
        let [low, high] = [0, 8].map(|first| self.shuffle(values, values, |i| i + first, 8));
        let halves = [0, 8].map(|first| {
            let index = self.shuffle(nibbles, nibbles, |i| i + first, 8);
            let [low, high] = [low, high].map(|t| {
                self.intrinsic("llvm.x86.avx2.permps", &[], &[t.into(), index.into()]).into_vector_value()
            });
            let i32x8 = self.ctx.i32_type().vec_type(8);
            let eight =
                inkwell::types::VectorType::const_vector(&[self.ctx.i32_type().const_int(8, false); 8]);
            let bit = ok(self.b.build_and(index, eight, ""));
            let is_high =
                ok(self.b.build_int_compare(inkwell::IntPredicate::NE, bit, i32x8.const_zero(), ""));
            ok(self.b.build_select(is_high, high, low, "")).into_vector_value()
        });
        self.shuffle(halves[0], halves[1], |i| i, LANES)
    }

    fn lookup_in_memory(&self, table: PointerValue<'c>, nibbles: VectorValue<'c>) -> VectorValue<'c> {
        let (i32, i64) = (self.ctx.i32_type(), self.ctx.i64_type());
        (0..LANES).fold(self.vec_type().get_undef(), |result, lane| {
            let lane = i32.const_int(u64::from(lane), false);
            let nibble = ok(self.b.build_extract_element(nibbles, lane, "")).into_int_value();
            let offset = self.mul(ok(self.b.build_int_z_extend(nibble, i64, "")), 4);
            let value = self.load(self.ctx.f32_type(), self.at(table, offset), 4);
            ok(self.b.build_insert_element(result, value, lane, ""))
        })
    }

    /// The tables of all E4M3 scales.
    fn tables(&self) -> PointerValue<'c> {
        let f32 = self.ctx.f32_type();
        let row = |byte| f32.const_array(&(0..16).map(|n| self.f32(value(byte, n))).collect::<Vec<_>>());
        self.rows_of_scales(TABLES, row)
    }
}

/// What a code stands for under an E4M3 scale: what the interpreter computes.
pub(super) fn value(scale: u8, nibble: u8) -> f32 {
    let scale = fireq_ir::e4m3::decode(scale);
    let scale = if scale.is_nan() { 0.0 } else { scale };
    quant::element(code_of_nibble(nibble) as i8, scale, DType::I4, DType::E4M3)
}

fn code_of_nibble(nibble: u8) -> f32 {
    f32::from((nibble << 4) as i8 >> 4)
}
