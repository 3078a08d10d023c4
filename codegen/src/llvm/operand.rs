//! A buffer as a kernel sees it: its type, and the addresses of its parts.

use inkwell::values::{FloatValue, IntValue, PointerValue};

use fireq_ir::plan::{Part, Storage, parts};
use fireq_ir::{DType, Type};

use super::emit::Emit;

pub(super) struct Operand<'c> {
    pub ty: Type,
    pub storage: Storage,
    pub parts: Vec<(Part, PointerValue<'c>)>,
}

impl<'c> Operand<'c> {
    /// Loads the addresses of a buffer's parts from the argument table, from `next` on. A vector of unknown length has
    /// one part, whose rows are never asked for. `None` when rows have no fixed size.
    pub fn load(e: &Emit<'c, '_>, ty: &Type, storage: Storage, next: &mut usize) -> Option<Self> {
        let vector = || (ty.shape.0.len() == 1).then(|| vec![Part::rows_of("", ty.dtype, 0)]);
        let list = parts(ty, storage).or_else(vector)?;
        let mut address = |part| {
            *next += 1;
            (part, e.load_pointer(e.pointer_param(0), *next - 1))
        };
        Some(Operand { ty: ty.clone(), storage, parts: list.into_iter().map(&mut address).collect() })
    }

    /// Rows, for weights: 1 for a vector, 0 for symbolic dimensions.
    pub fn rows(&self) -> usize {
        self.ty.shape.rows().fixed().unwrap_or(0)
    }

    /// Elements per row.
    pub fn cols(&self) -> usize {
        self.ty.shape.cols().fixed().unwrap_or(0)
    }

    /// The dtype in which elements of a part are stored.
    pub fn stored(&self, part: usize) -> DType {
        self.parts[part].0.dtype
    }

    /// The address of a part.
    pub fn base(&self, part: usize) -> PointerValue<'c> {
        self.parts[part].1
    }

    /// The address of a row of a part.
    pub fn row(&self, e: &Emit<'c, '_>, part: usize, row: IntValue<'c>) -> PointerValue<'c> {
        let (part, pointer) = &self.parts[part];
        e.row(*pointer, row, part.row_bytes())
    }

    /// What the epilogue multiplies a row with: the outer scale, or the only scale of E4M3 codes.
    pub fn row_factor(&self, e: &Emit<'c, '_>, row: IntValue<'c>) -> Option<FloatValue<'c>> {
        let one_scale = |level: &fireq_ir::Level| level.count(self.cols()) == 1;
        let part = match self.ty.scheme.0.as_slice() {
            [_, _] => 2,
            [level] if self.ty.dtype == DType::E4M3 && one_scale(level) => 1,
            _ => return None,
        };
        let scale = self.load_scale(e, part, row, e.index(0));
        Some(scale)
    }

    /// Scale `index` of a row of part `part`, as f32. E4M3 scales are read through tables instead.
    pub fn load_scale(
        &self,
        e: &Emit<'c, '_>,
        part: usize,
        row: IntValue<'c>,
        index: IntValue<'c>,
    ) -> FloatValue<'c> {
        let scale = e.load_floats(self.row(e, part, row), index, self.stored(part), 1);
        e.first(scale).into_float_value()
    }
}
