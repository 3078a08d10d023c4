//! One function under construction: control flow, addresses and memory. Loops keep state in stack slots, which LLVM
//! turns into registers.

use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{BasicValueEnum, FloatValue, FunctionValue, IntValue, PointerValue, VectorValue};
use inkwell::{AddressSpace, IntPredicate};

use fireq_kernels::VectorRegisters;

use super::target::{Cpu, Isa};

/// Elements of every vector; LLVM splits them to what the target has.
pub(super) const LANES: u32 = 16;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// A function under construction, positioned where the next instruction goes.
pub(super) struct Emit<'c, 'm> {
    pub ctx: &'c Context,
    pub module: &'m Module<'c>,
    pub b: Builder<'c>,
    pub function: FunctionValue<'c>,
    pub isa: Isa,
    pub registers: VectorRegisters,
}

/// The builder fails only when it stands outside a function, which [`Emit::new`] rules out.
pub(super) fn ok<T>(result: Result<T, BuilderError>) -> T {
    result.expect("the builder stands in a block and operands have matching types")
}

impl<'c, 'm> Emit<'c, 'm> {
    /// Starts the function `name` with the ABI `(args, dims, begin, end, scratch)`.
    pub fn new(ctx: &'c Context, module: &'m Module<'c>, name: &str, cpu: Cpu) -> Self {
        let (ptr, i64) = (ctx.ptr_type(AddressSpace::default()), ctx.i64_type());
        let ty =
            ctx.void_type().fn_type(&[ptr.into(), ptr.into(), i64.into(), i64.into(), ptr.into()], false);
        let function = module.add_function(name, ty, None);
        let b = ctx.create_builder();
        b.position_at_end(ctx.append_basic_block(function, "entry"));
        Emit { ctx, module, b, function, isa: cpu.isa(), registers: cpu.registers() }
    }

    /// Parameter `n` that is a pointer: 0 args, 1 dims, 4 scratch.
    pub fn pointer_param(&self, n: u32) -> PointerValue<'c> {
        self.function.get_nth_param(n).expect("five parameters").into_pointer_value()
    }

    /// Parameter `n` that is a number: 2 begin, 3 end.
    pub fn int_param(&self, n: u32) -> IntValue<'c> {
        self.function.get_nth_param(n).expect("five parameters").into_int_value()
    }

    pub fn index(&self, n: usize) -> IntValue<'c> {
        self.ctx.i64_type().const_int(n as u64, false)
    }

    pub fn f32(&self, x: f32) -> FloatValue<'c> {
        self.ctx.f32_type().const_float(f64::from(x))
    }

    pub fn add(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        ok(self.b.build_int_add(a, b, ""))
    }

    pub fn sub(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        ok(self.b.build_int_sub(a, b, ""))
    }

    pub fn equal_int(&self, a: IntValue<'c>, n: usize) -> IntValue<'c> {
        ok(self.b.build_int_compare(IntPredicate::EQ, a, self.index(n), ""))
    }

    pub fn mul(&self, a: IntValue<'c>, n: usize) -> IntValue<'c> {
        ok(self.b.build_int_mul(a, self.index(n), ""))
    }

    pub fn div(&self, a: IntValue<'c>, n: usize) -> IntValue<'c> {
        ok(self.b.build_int_unsigned_div(a, self.index(n), ""))
    }

    pub fn rem(&self, a: IntValue<'c>, n: usize) -> IntValue<'c> {
        ok(self.b.build_int_unsigned_rem(a, self.index(n), ""))
    }

    /// `a < b ? a : b`.
    pub fn min(&self, a: IntValue<'c>, b: IntValue<'c>) -> IntValue<'c> {
        let less = ok(self.b.build_int_compare(IntPredicate::ULT, a, b, ""));
        ok(self.b.build_select(less, a, b, "")).into_int_value()
    }

    /// `pointer + bytes`.
    pub fn at(&self, pointer: PointerValue<'c>, bytes: IntValue<'c>) -> PointerValue<'c> {
        // SAFETY: an address computation; what is loaded through it is the kernel's contract with its caller.
        ok(unsafe { self.b.build_gep(self.ctx.i8_type(), pointer, &[bytes], "") })
    }

    /// The address of row `row` of an array with rows of `row_bytes`.
    pub fn row(&self, pointer: PointerValue<'c>, row: IntValue<'c>, row_bytes: usize) -> PointerValue<'c> {
        self.at(pointer, self.mul(row, row_bytes))
    }

    pub fn load(
        &self,
        ty: impl Into<BasicTypeEnum<'c>>,
        pointer: PointerValue<'c>,
        align: u32,
    ) -> BasicValueEnum<'c> {
        let value = ok(self.b.build_load(ty.into(), pointer, ""));
        let load = value.as_instruction_value_of_load();
        load.set_alignment(align).expect("a power of two");
        value
    }

    pub fn store(&self, pointer: PointerValue<'c>, value: impl Into<BasicValueEnum<'c>>, align: u32) {
        ok(self.b.build_store(pointer, value.into())).set_alignment(align).expect("a power of two");
    }

    pub fn load_pointer(&self, from: PointerValue<'c>, n: usize) -> PointerValue<'c> {
        let slot = self.at(from, self.index(8 * n));
        self.load(self.ctx.ptr_type(AddressSpace::default()), slot, 8).into_pointer_value()
    }

    pub fn load_index(&self, from: PointerValue<'c>, n: usize) -> IntValue<'c> {
        self.load(self.ctx.i64_type(), self.at(from, self.index(8 * n)), 8).into_int_value()
    }

    /// A stack slot for `ty`, made in the entry block so that loops do not grow the stack.
    pub fn slot(&self, ty: impl Into<BasicTypeEnum<'c>>) -> PointerValue<'c> {
        let entry = self.function.get_first_basic_block().expect("an entry block");
        let b = self.ctx.create_builder();
        match entry.get_first_instruction() {
            Some(first) => b.position_before(&first),
            None => b.position_at_end(entry),
        }
        ok(b.build_alloca(ty.into(), ""))
    }

    pub fn vec_type(&self) -> VectorType<'c> {
        self.ctx.f32_type().vec_type(LANES)
    }

    /// `n` stack slots for vectors.
    pub fn slots(&self, n: usize) -> Vec<PointerValue<'c>> {
        (0..n).map(|_| self.slot(self.vec_type())).collect()
    }

    pub fn get(&self, slot: PointerValue<'c>) -> VectorValue<'c> {
        self.load(self.vec_type(), slot, 64).into_vector_value()
    }

    pub fn set(&self, slot: PointerValue<'c>, value: VectorValue<'c>) {
        self.store(slot, value, 64);
    }

    /// Sets vectors to zero.
    pub fn clear(&self, slots: &[PointerValue<'c>]) {
        for slot in slots {
            self.set(*slot, self.vec_type().const_zero());
        }
    }

    /// `for i in (begin..end).step_by(step) { body(i) }`.
    pub fn for_range(
        &self,
        begin: IntValue<'c>,
        end: IntValue<'c>,
        step: usize,
        body: impl FnOnce(IntValue<'c>),
    ) {
        let before = self.b.get_insert_block().expect("inside a block");
        let [head, inside, after] =
            ["head", "body", "after"].map(|n| self.ctx.append_basic_block(self.function, n));
        ok(self.b.build_unconditional_branch(head));
        self.b.position_at_end(head);
        let phi = ok(self.b.build_phi(self.ctx.i64_type(), "i"));
        let i = phi.as_basic_value().into_int_value();
        let more = ok(self.b.build_int_compare(IntPredicate::ULT, i, end, ""));
        ok(self.b.build_conditional_branch(more, inside, after));
        self.b.position_at_end(inside);
        body(i);
        let next = self.add(i, self.index(step));
        let last = self.b.get_insert_block().expect("inside a block");
        ok(self.b.build_unconditional_branch(head));
        phi.add_incoming(&[(&begin, before), (&next, last)]);
        self.b.position_at_end(after);
    }

    /// `if condition { yes() } else { no() }`.
    pub fn if_else(&self, condition: IntValue<'c>, yes: impl FnOnce(), no: impl FnOnce()) {
        let [then, other, after] =
            ["then", "else", "after"].map(|n| self.ctx.append_basic_block(self.function, n));
        ok(self.b.build_conditional_branch(condition, then, other));
        self.b.position_at_end(then);
        yes();
        ok(self.b.build_unconditional_branch(after));
        self.b.position_at_end(other);
        no();
        ok(self.b.build_unconditional_branch(after));
        self.b.position_at_end(after);
    }

    /// `for i in 0..n { body(i) }`.
    pub fn for_count(&self, n: usize, body: impl FnOnce(IntValue<'c>)) {
        match n {
            0 => {}
            1 => body(self.index(0)),
            _ => self.for_range(self.index(0), self.index(n), 1, body),
        }
    }

    /// Walks `cols` channels in chunks: `body(first channel, channels in the chunk)`; the last may be short.
    pub fn for_chunks(&self, cols: usize, body: impl Fn(IntValue<'c>, u32)) {
        let lanes = LANES as usize;
        self.for_count(cols / lanes, |i| body(self.mul(i, lanes), LANES));
        if !cols.is_multiple_of(lanes) {
            body(self.index(cols / lanes * lanes), (cols % lanes) as u32);
        }
    }

    /// Calls an LLVM intrinsic, overloaded on `overload`.
    pub fn intrinsic(
        &self,
        name: &str,
        overload: &[BasicTypeEnum<'c>],
        args: &[BasicValueEnum<'c>],
    ) -> BasicValueEnum<'c> {
        let intrinsic = Intrinsic::find(name).expect("an intrinsic of LLVM 19");
        let function = intrinsic.get_declaration(self.module, overload).expect("an overload that exists");
        let args: Vec<_> = args.iter().map(|a| (*a).into()).collect();
        ok(self.b.build_call(function, &args, ""))
            .try_as_basic_value()
            .basic()
            .expect("an intrinsic with a result")
    }

    /// Asks for the cache lines of `bytes` at an address, which need not be memory.
    pub fn prefetch(&self, from: PointerValue<'c>, bytes: usize) {
        for line in (0..bytes).step_by(CACHE_LINE) {
            self.prefetch_line(self.at(from, self.index(line)));
        }
    }

    fn prefetch_line(&self, at: PointerValue<'c>) {
        let number = |n| self.ctx.i32_type().const_int(n, false).into();
        let pointer = self.ctx.ptr_type(AddressSpace::default()).into();
        let prefetch = Intrinsic::find("llvm.prefetch").expect("an intrinsic of LLVM 19");
        let prefetch = prefetch.get_declaration(self.module, &[pointer]).expect("an overload that exists");
        // To read, to stay in all caches, as data.
        ok(self.b.build_call(prefetch, &[at.into(), number(0), number(3), number(1)], ""));
    }

    /// Ends the function.
    pub fn finish(self) {
        ok(self.b.build_return(None));
    }
}

/// The load behind a value that was just loaded.
trait LoadInstruction<'c> {
    fn as_instruction_value_of_load(&self) -> inkwell::values::InstructionValue<'c>;
}

impl<'c> LoadInstruction<'c> for BasicValueEnum<'c> {
    fn as_instruction_value_of_load(&self) -> inkwell::values::InstructionValue<'c> {
        use inkwell::values::BasicValue;
        self.as_instruction_value().expect("a load is an instruction")
    }
}
