//! E4M3 codes of weights to numbers, exactly and by few instructions: a product with them is bound by memory.

use inkwell::types::VectorType;
use inkwell::values::{IntValue, PointerValue, VectorValue};

use super::emit::{Emit, LANES, ok};
use super::target::Isa;

/// What sums with [`Emit::load_e4m3`] are multiplied with.
pub(super) const UNIT: f32 = 256.0;

impl<'c> Emit<'c, '_> {
    /// `have` numbers of E4M3 codes from element `offset` of an array, in units of [`UNIT`], as f32; zeros in the lanes beyond.
    ///
    /// An f16 has the same mantissa with three more exponents in front and a bias that is larger by 8: a code's bits are those
    /// of the f16 which is 2⁻⁸ times its number, subnormals included, and f16 is what processors widen. Where they do not, the
    /// bits are those of an f32 which is 2⁻¹²⁰ times the number.
    pub fn load_e4m3(&self, codes: PointerValue<'c>, offset: IntValue<'c>, have: u32) -> VectorValue<'c> {
        let bytes = self.load(self.ctx.i8_type().vec_type(have), self.at(codes, offset), 1);
        let bytes = self.pad(bytes.into_vector_value(), have);
        if self.isa == Isa::Generic {
            let bits = ok(self.b.build_int_z_extend(bytes, self.ctx.i32_type().vec_type(LANES), ""));
            let magnitude = self.float_of_bits(self.shl(self.and(bits, 0x7f), 20));
            let magnitude = self.fmul(magnitude, self.constant(2.0f32.powi(112)));
            let sign = self.shl(self.and(bits, 0x80), 24);
            return self.float_of_bits(self.or(self.bits(magnitude), sign));
        }
        let i16 = self.ctx.i16_type();
        let splat = |n: u64| VectorType::const_vector(&[i16.const_int(n, false); LANES as usize]);
        // A sign in every bit above, of which the second is the highest bit of an exponent that is never set.
        let words = ok(self.b.build_int_s_extend(bytes, i16.vec_type(LANES), ""));
        let words: VectorValue<'c> = ok(self.b.build_left_shift(words, splat(7), ""));
        let words: VectorValue<'c> = ok(self.b.build_and(words, splat(0xbfff), ""));
        let halves = ok(self.b.build_bit_cast(words, self.ctx.f16_type().vec_type(LANES), ""));
        ok(self.b.build_float_ext(halves.into_vector_value(), self.vec_type(), ""))
    }
}
