//! Vectors of f64: sums and functions whose results are rounded to f32 once, as the interpreter's are. What is then
//! rounded to FP8 or INT4 is the same number on both, so that roundings agree to the bit through a whole model.

use inkwell::types::VectorType;
use inkwell::values::{FloatValue, PointerValue, VectorValue};

use super::emit::{Emit, LANES, ok};

type V<'c> = VectorValue<'c>;

impl<'c> Emit<'c, '_> {
    fn wide_type(&self) -> VectorType<'c> {
        self.ctx.f64_type().vec_type(LANES)
    }

    /// f32 to f64.
    pub fn widen(&self, v: V<'c>) -> V<'c> {
        ok(self.b.build_float_ext(v, self.wide_type(), ""))
    }

    /// f64 to f32, rounded to nearest.
    pub fn narrow(&self, v: V<'c>) -> V<'c> {
        ok(self.b.build_float_trunc(v, self.vec_type(), ""))
    }

    pub fn widen_scalar(&self, x: FloatValue<'c>) -> FloatValue<'c> {
        ok(self.b.build_float_ext(x, self.ctx.f64_type(), ""))
    }

    pub fn narrow_scalar(&self, x: FloatValue<'c>) -> FloatValue<'c> {
        ok(self.b.build_float_trunc(x, self.ctx.f32_type(), ""))
    }

    pub fn splat_wide(&self, x: FloatValue<'c>) -> V<'c> {
        self.broadcast(x.into(), self.wide_type().get_undef())
    }

    pub fn wide_constant(&self, x: f64) -> V<'c> {
        self.splat_wide(self.ctx.f64_type().const_float(x))
    }

    /// `n` zeroed stack slots for vectors of f64; [`Emit::clear_wide`] zeroes them again.
    pub fn wide_slots(&self, n: usize) -> Vec<PointerValue<'c>> {
        (0..n).map(|_| self.slot(self.wide_type())).collect()
    }

    pub fn clear_wide(&self, slots: &[PointerValue<'c>]) {
        for slot in slots {
            self.store(*slot, self.wide_type().const_zero(), 64);
        }
    }

    pub fn get_wide(&self, slot: PointerValue<'c>) -> V<'c> {
        self.load(self.wide_type(), slot, 64).into_vector_value()
    }

    /// `slot += v`, for a vector of f64.
    pub fn add_wide(&self, slot: PointerValue<'c>, v: V<'c>) {
        self.store(slot, self.fadd(self.get_wide(slot), v), 64);
    }

    /// `slot += a·b`, for vectors of f64.
    pub fn accumulate_wide(&self, slot: PointerValue<'c>, a: V<'c>, b: V<'c>) {
        self.store(slot, self.fma(a, b, self.get_wide(slot)), 64);
    }

    /// The sum of a vector of f64.
    pub fn reduce_wide(&self, v: V<'c>) -> FloatValue<'c> {
        let start = self.ctx.f64_type().const_float(-0.0);
        self.reduce("llvm.vector.reduce.fadd", v.get_type(), start, v)
    }

    /// `2^x` of f64 to about 1e-15; x is clamped to ±1000.
    pub fn exp2_wide(&self, x: V<'c>) -> V<'c> {
        let (top, bottom) = (self.wide_constant(1000.0), self.wide_constant(-1000.0));
        let ty = [self.wide_type().into()];
        let x = self.intrinsic("llvm.minnum", &ty, &[x.into(), top.into()]).into_vector_value();
        let x = self.intrinsic("llvm.maxnum", &ty, &[x.into(), bottom.into()]).into_vector_value();
        // Adding 1.5·2⁵² leaves f64 no bits below 1.
        let magic = self.wide_constant(6755399441055744.0);
        let whole = self.fsub(self.fadd(x, magic), magic);
        let f = self.fsub(x, whole);
        let coefficient = |k: i32| {
            let factorial: f64 = (1..=k).map(f64::from).product();
            self.wide_constant(std::f64::consts::LN_2.powi(k) / factorial)
        };
        let polynomial = (0..12).rev().fold(coefficient(12), |sum, k| self.fma(sum, f, coefficient(k)));
        self.fmul(polynomial, self.power_of_two(whole))
    }

    /// `2^n` for whole n, from its exponent bits.
    fn power_of_two(&self, n: V<'c>) -> V<'c> {
        let i64 = self.ctx.i64_type();
        let splat = |x: u64| self.broadcast(i64.const_int(x, false).into(), i64.vec_type(LANES).get_undef());
        let n = ok(self.b.build_float_to_signed_int(n, i64.vec_type(LANES), ""));
        let biased = ok(self.b.build_int_add(n, splat(1023), ""));
        let bits = ok(self.b.build_left_shift(biased, splat(52), ""));
        ok(self.b.build_bit_cast(bits, self.wide_type(), "")).into_vector_value()
    }

    /// `x / (1 + exp(−x))` of f32, rounded once.
    pub fn silu(&self, x: V<'c>) -> V<'c> {
        let x = self.widen(x);
        let exp = self.exp2_wide(self.fmul(x, self.wide_constant(-std::f64::consts::LOG2_E)));
        self.narrow(self.fdiv(x, self.fadd(exp, self.wide_constant(1.0))))
    }
}
