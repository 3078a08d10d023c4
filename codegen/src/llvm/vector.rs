//! Vector arithmetic: what the numeric contract needs beyond plain adds and multiplications.

use inkwell::FloatPredicate;
use inkwell::types::VectorType;
use inkwell::values::{
    BasicValue, BasicValueEnum, FastMathFlags, FloatValue, IntValue, PointerValue, VectorValue,
};

use fireq_ir::{DType, e4m3};

use super::emit::{Emit, LANES, ok};

type V<'c> = VectorValue<'c>;

impl<'c> Emit<'c, '_> {
    pub fn splat(&self, x: FloatValue<'c>) -> V<'c> {
        self.broadcast(x.into(), self.vec_type().get_undef())
    }

    pub fn splat_int(&self, x: IntValue<'c>) -> V<'c> {
        self.broadcast(x.into(), self.ctx.i32_type().vec_type(LANES).get_undef())
    }

    pub fn broadcast(&self, x: BasicValueEnum<'c>, undef: V<'c>) -> V<'c> {
        let i32 = self.ctx.i32_type();
        let one = ok(self.b.build_insert_element(undef, x, i32.const_zero(), ""));
        ok(self.b.build_shuffle_vector(one, undef, i32.vec_type(LANES).const_zero(), ""))
    }

    pub fn constant(&self, x: f32) -> V<'c> {
        self.splat(self.f32(x))
    }

    pub fn int(&self, x: u32) -> V<'c> {
        self.splat_int(self.ctx.i32_type().const_int(u64::from(x), false))
    }

    pub fn fadd(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_float_add(a, b, ""))
    }

    pub fn fsub(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_float_sub(a, b, ""))
    }

    pub fn fmul(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_float_mul(a, b, ""))
    }

    pub fn fdiv(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_float_div(a, b, ""))
    }

    /// `a·b + c`, fused where the target can. Only for sums, whose order the contract leaves open.
    pub fn fma(&self, a: V<'c>, b: V<'c>, c: V<'c>) -> V<'c> {
        let product = contract(self.fmul(a, b));
        contract(self.fadd(product, c))
    }

    /// `slot += a·b`.
    pub fn accumulate(&self, slot: PointerValue<'c>, a: V<'c>, b: V<'c>) {
        self.set(slot, self.fma(a, b, self.get(slot)));
    }

    pub fn fmax(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        self.intrinsic("llvm.maxnum", &[self.vec_type().into()], &[a.into(), b.into()]).into_vector_value()
    }

    pub fn fmin(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        self.intrinsic("llvm.minnum", &[self.vec_type().into()], &[a.into(), b.into()]).into_vector_value()
    }

    /// The least whole number that is not below, by conversions: baseline CPUs have no instruction for it.
    pub fn ceil(&self, x: V<'c>) -> V<'c> {
        let whole = ok(self.b.build_float_to_signed_int(x, self.ctx.i32_type().vec_type(LANES), ""));
        let whole = ok(self.b.build_signed_int_to_float(whole, self.vec_type(), ""));
        let up = self.select(self.less(whole, x), self.fadd(whole, self.constant(1.0)), whole);
        // From 2²⁴ on all numbers are whole, and conversions end somewhere behind.
        self.select(self.less(self.fabs(x), self.constant(16_777_216.0)), up, x)
    }

    pub fn fabs(&self, a: V<'c>) -> V<'c> {
        self.intrinsic("llvm.fabs", &[self.vec_type().into()], &[a.into()]).into_vector_value()
    }

    /// A sum of lanes in any order, from `start`.
    pub fn reduce(&self, name: &str, ty: VectorType<'c>, start: FloatValue<'c>, v: V<'c>) -> FloatValue<'c> {
        let sum = self.intrinsic(name, &[ty.into()], &[start.into(), v.into()]);
        if let Some(call) = sum.as_instruction_value() {
            call.set_fast_math_flags(FastMathFlags::AllowReassoc).expect("a floating-point call");
        }
        sum.into_float_value()
    }

    pub fn reduce_max(&self, v: V<'c>) -> FloatValue<'c> {
        self.intrinsic("llvm.vector.reduce.fmax", &[self.vec_type().into()], &[v.into()]).into_float_value()
    }

    pub fn first(&self, v: V<'c>) -> BasicValueEnum<'c> {
        ok(self.b.build_extract_element(v, self.ctx.i32_type().const_zero(), ""))
    }

    pub fn bits(&self, v: V<'c>) -> V<'c> {
        ok(self.b.build_bit_cast(v, self.ctx.i32_type().vec_type(LANES), "")).into_vector_value()
    }

    pub fn float_of_bits(&self, v: V<'c>) -> V<'c> {
        ok(self.b.build_bit_cast(v, self.vec_type(), "")).into_vector_value()
    }

    pub fn and(&self, a: V<'c>, mask: u32) -> V<'c> {
        ok(self.b.build_and(a, self.int(mask), ""))
    }

    pub fn or(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_or(a, b, ""))
    }

    pub fn iadd(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_int_add(a, b, ""))
    }

    pub fn shl(&self, a: V<'c>, n: u32) -> V<'c> {
        ok(self.b.build_left_shift(a, self.int(n), ""))
    }

    pub fn shr(&self, a: V<'c>, n: u32) -> V<'c> {
        ok(self.b.build_right_shift(a, self.int(n), false, ""))
    }

    pub fn select(&self, condition: V<'c>, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_select(condition, a, b, "")).into_vector_value()
    }

    pub fn less(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_float_compare(FloatPredicate::OLT, a, b, ""))
    }

    pub fn equal(&self, a: V<'c>, b: V<'c>) -> V<'c> {
        ok(self.b.build_float_compare(FloatPredicate::OEQ, a, b, ""))
    }

    /// Rounds to the nearest integer, ties to even, for |x| < 2²²; beyond that the result stays as large.
    pub fn round_even(&self, x: V<'c>) -> V<'c> {
        let magic = self.constant(12582912.0);
        self.fsub(self.fadd(x, magic), magic)
    }

    /// `rn8`: the nearest E4M3 value as f32, bit for bit [`e4m3::round`].
    pub fn round_e4m3(&self, x: V<'c>) -> V<'c> {
        let magnitude = self.fmin(self.fabs(x), self.constant(e4m3::MAX));
        let bits = self.bits(magnitude);
        let odd = self.and(self.shr(bits, 20), 1);
        let rounded = self.and(self.iadd(self.iadd(bits, self.int(0x7ffff)), odd), !0xfffff);
        // Adding 2¹⁴ leaves f32 no bits below 2⁻⁹, the spacing of subnormals.
        let magic = self.constant(16384.0);
        let subnormal = self.fsub(self.fadd(magnitude, magic), magic);
        let is_subnormal = self.less(magnitude, self.constant(e4m3::MIN_NORMAL));
        let magnitude = self.select(is_subnormal, subnormal, self.float_of_bits(rounded));
        let sign = self.and(self.bits(x), 0x8000_0000);
        self.float_of_bits(self.or(self.bits(magnitude), sign))
    }

    /// The bytes of E4M3 values, in the low byte of each lane: bit for bit [`e4m3::encode`].
    pub fn encode_e4m3(&self, x: V<'c>) -> V<'c> {
        let magnitude = self.fabs(x);
        let normal = self.iadd(self.shr(self.bits(magnitude), 20), self.int(0u32.wrapping_sub(120 << 3)));
        let quanta = self.fmul(magnitude, self.constant(1.0 / e4m3::MIN_SUBNORMAL));
        let subnormal = self.to_int(self.fmin(quanta, self.constant(8.0)));
        let is_subnormal = self.less(magnitude, self.constant(e4m3::MIN_NORMAL));
        let byte = self.select(is_subnormal, subnormal, normal);
        self.or(byte, self.and(self.shr(self.bits(x), 24), 0x80))
    }

    /// The nearest bf16 value as f32, ties to even.
    pub fn round_bf16(&self, x: V<'c>) -> V<'c> {
        let bits = self.bits(x);
        let odd = self.and(self.shr(bits, 16), 1);
        self.float_of_bits(self.and(self.iadd(self.iadd(bits, self.int(0x7fff)), odd), 0xffff_0000))
    }

    /// The upper 16 bits of each lane as bf16: the number itself where it has no more bits.
    pub fn top_halves(&self, x: V<'c>) -> V<'c> {
        let bits = self.shr(self.bits(x), 16);
        let halves = ok(self.b.build_int_truncate(bits, self.ctx.i16_type().vec_type(LANES), ""));
        ok(self.b.build_bit_cast(halves, self.ctx.bf16_type().vec_type(LANES), "")).into_vector_value()
    }

    /// Truncates to integers.
    pub fn to_int(&self, x: V<'c>) -> V<'c> {
        ok(self.b.build_float_to_signed_int(x, self.ctx.i32_type().vec_type(LANES), ""))
    }

    /// `have` numbers from element `offset` of an array of floats, as f32; zeros in the lanes beyond.
    pub fn load_floats(
        &self,
        array: PointerValue<'c>,
        offset: IntValue<'c>,
        dtype: DType,
        have: u32,
    ) -> V<'c> {
        let bytes = dtype.bits() / 8;
        let address = self.at(array, self.mul(offset, bytes));
        if dtype == DType::F32 {
            return self
                .pad(self.load(self.ctx.f32_type().vec_type(have), address, 4).into_vector_value(), have);
        }
        let half = self.load(self.ctx.i16_type().vec_type(have), address, 2).into_vector_value();
        let half = self.pad(half, have);
        let wide = ok(self.b.build_int_z_extend(half, self.ctx.i32_type().vec_type(LANES), ""));
        if dtype == DType::BF16 { self.float_of_bits(self.shl(wide, 16)) } else { self.widen_f16(wide) }
    }

    /// f16 bits to f32: the exponent is moved up by a multiplication, which is exact for subnormals too.
    fn widen_f16(&self, half: V<'c>) -> V<'c> {
        let magnitude = self.float_of_bits(self.shl(self.and(half, 0x7fff), 13));
        let scaled = self.fmul(magnitude, self.constant(f32::from_bits(239 << 23)));
        let sign = self.shl(self.and(half, 0x8000), 16);
        self.float_of_bits(self.or(self.bits(scaled), sign))
    }

    /// Stores the first `have` lanes at element `offset` of an f32 array.
    pub fn store_floats(&self, array: PointerValue<'c>, offset: IntValue<'c>, v: V<'c>, have: u32) {
        self.store(self.at(array, self.mul(offset, 4)), self.truncate(v, have), 4);
    }

    /// The first `have` lanes of `v`, and zeros.
    pub fn pad(&self, v: V<'c>, have: u32) -> V<'c> {
        if have == LANES {
            return v;
        }
        let zero = v.get_type().const_zero();
        self.shuffle(v, zero, |lane| if lane < have { lane } else { have }, LANES)
    }

    fn truncate(&self, v: V<'c>, have: u32) -> V<'c> {
        if have == LANES { v } else { self.shuffle(v, v, |lane| lane, have) }
    }

    /// The vector whose lane `i` is element `pick(i)` of `a` followed by `b`.
    pub fn shuffle(&self, a: V<'c>, b: V<'c>, pick: impl Fn(u32) -> u32, lanes: u32) -> V<'c> {
        let i32 = self.ctx.i32_type();
        let mask: Vec<_> = (0..lanes).map(|lane| i32.const_int(u64::from(pick(lane)), false)).collect();
        ok(self.b.build_shuffle_vector(a, b, VectorType::const_vector(&mask), ""))
    }
}

impl<'c> Emit<'c, '_> {
    /// The vector of the elements `order` of vectors of [`LANES`] elements that follow one another.
    pub fn collect(&self, parts: &[V<'c>], order: &[u32]) -> V<'c> {
        let first = order[0] / LANES;
        let second = order.iter().map(|n| n / LANES).find(|part| *part != first).unwrap_or(first);
        if order.iter().all(|n| [first, second].contains(&(n / LANES))) {
            let [a, b] = [first, second].map(|part| parts[part as usize]);
            let pick = |n: u32| n % LANES + if n / LANES == first { 0 } else { LANES };
            return self.shuffle(a, b, |lane| pick(order[lane as usize]), order.len() as u32);
        }
        let (low, high) = order.split_at(order.len() / 2);
        self.shuffle(self.collect(parts, low), self.collect(parts, high), |lane| lane, order.len() as u32)
    }
}

fn contract(v: VectorValue<'_>) -> VectorValue<'_> {
    if let Some(instruction) = v.as_instruction_value() {
        // Fails only for values that are not arithmetic, such as folded constants.
        let _ = instruction.set_fast_math_flags(FastMathFlags::AllowContract);
    }
    v
}
