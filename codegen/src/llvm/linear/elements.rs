//! What products are made of: weights from codes and tables, activations in the same order, and how they add up. Values of
//! E4M3 have four significant bits, so that they are exact as bf16 and their products are exact as f32.

use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{FloatValue, IntValue, PointerValue, VectorValue};

use fireq_ir::DType;
use fireq_ir::plan::BLOCK;

use super::super::codes::Table;
use super::super::emit::{Emit, LANES};
use super::super::operand::Operand;
use super::super::target::Isa;

/// How blocks of 32 channels are held between memory and sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// 32 bf16 in a register, two of which are multiplied into a lane of f32.
    Pairs,
    /// f32 made of two bytes that a shuffle looks up each, in the order in which bytes come together.
    Bytes,
    /// f32 in the order of channels.
    Values,
}

/// The elements of a linear layer's products.
pub(super) struct Elements {
    kind: Kind,
    scales: DType,
    /// Lanes of a sum.
    pub lanes: u32,
}

/// Values of codes under one scale.
pub(super) enum Lookup<'c> {
    Pairs(VectorValue<'c>),
    /// High bytes, low bytes.
    Bytes([VectorValue<'c>; 2]),
    Values(Table<'c>),
}

impl Elements {
    pub fn of(e: &Emit<'_, '_>, x: &Operand<'_>, w: &Operand<'_>) -> Self {
        let scales = w.ty.scheme.0[0].dtype;
        let kind = match e.isa {
            Isa::Avx512Bf16 if scales == DType::E4M3 && x.ty.dtype == DType::E4M3 => Kind::Pairs,
            Isa::Avx2 if scales == DType::E4M3 => Kind::Bytes,
            _ => Kind::Values,
        };
        Elements { kind, scales, lanes: e.registers.lanes as u32 }
    }

    /// Bytes of a block.
    pub fn bytes(&self) -> usize {
        if self.kind == Kind::Pairs { 2 * BLOCK } else { 4 * BLOCK }
    }

    /// Blocks whose products add up in f32, before sums go on in f64: 32 products in each lane, which have eight significant
    /// bits each.
    pub fn chunk(&self) -> usize {
        self.lanes as usize
    }

    fn ty<'c>(&self, e: &Emit<'c, '_>) -> VectorType<'c> {
        match self.kind {
            Kind::Pairs => e.ctx.bf16_type().vec_type(2 * self.lanes),
            _ => self.sum(e),
        }
    }

    /// A sum.
    pub fn sum<'c>(&self, e: &Emit<'c, '_>) -> VectorType<'c> {
        e.ctx.f32_type().vec_type(self.lanes)
    }

    /// Where the vectors of a block have their channels.
    fn order(&self) -> Vec<Vec<u32>> {
        let vectors = |lanes: u32| 0..BLOCK as u32 / lanes;
        match self.kind {
            Kind::Pairs => vec![(0..BLOCK as u32).collect()],
            Kind::Values => {
                vectors(self.lanes).map(|v| (0..self.lanes).map(|n| v * self.lanes + n).collect()).collect()
            }
            // Bytes are unpacked within halves of a register, the low and the high ones; words are low and high in doublewords.
            Kind::Bytes => vectors(self.lanes)
                .map(|v| (0..self.lanes).map(|n| n / 4 * 16 + v / 2 * 8 + n % 4 * 2 + v % 2).collect())
                .collect(),
        }
    }

    /// Writes `blocks` blocks of a row of activations to `to`.
    pub fn pack<'c>(
        &self,
        e: &Emit<'c, '_>,
        x: &Operand<'c>,
        row: PointerValue<'c>,
        blocks: usize,
        to: PointerValue<'c>,
    ) {
        // Codes are padded to whole blocks; what is not coded ends with its channels.
        let cols = if x.ty.scheme.is_plain() { x.cols() } else { blocks * BLOCK };
        let block = |n: IntValue<'c>, have: usize| {
            let half = |skip: usize| {
                let have = have.saturating_sub(skip).min(LANES as usize) as u32;
                if have == 0 {
                    return e.constant(0.0);
                }
                e.load_floats(row, e.add(e.mul(n, BLOCK), e.index(skip)), x.stored(0), have)
            };
            let halves = [half(0), half(LANES as usize)];
            let to = e.row(to, n, self.bytes());
            for (v, order) in self.order().iter().enumerate() {
                let ordered = |[a, b]: [VectorValue<'c>; 2]| {
                    e.shuffle(a, b, |lane| order[lane as usize], order.len() as u32)
                };
                let vector = if self.kind == Kind::Pairs {
                    ordered(halves.map(|half| e.top_halves(half)))
                } else {
                    ordered(halves)
                };
                e.store(e.at(to, e.index(v * 4 * self.lanes as usize)), vector, 4);
            }
        };
        e.for_count(cols / BLOCK, |n| block(n, BLOCK));
        if !cols.is_multiple_of(BLOCK) {
            block(e.index(cols / BLOCK), cols % BLOCK);
        }
    }

    /// The vectors of a block.
    pub fn load<'c>(&self, e: &Emit<'c, '_>, block: PointerValue<'c>) -> Vec<VectorValue<'c>> {
        let at = |v: usize| e.at(block, e.index(v * 4 * self.lanes as usize));
        (0..self.bytes() / (4 * self.lanes as usize))
            .map(|v| e.load(BasicTypeEnum::from(self.ty(e)), at(v), 4).into_vector_value())
            .collect()
    }

    pub fn store<'c>(&self, e: &Emit<'c, '_>, block: PointerValue<'c>, vectors: &[VectorValue<'c>]) {
        for (v, vector) in vectors.iter().enumerate() {
            e.store(e.at(block, e.index(v * 4 * self.lanes as usize)), *vector, 4);
        }
    }

    /// The values of codes under scale `index` of an array.
    pub fn lookup<'c>(&self, e: &Emit<'c, '_>, scales: PointerValue<'c>, index: IntValue<'c>) -> Lookup<'c> {
        match self.kind {
            Kind::Pairs => Lookup::Pairs(e.table_of_pairs(scales, index)),
            Kind::Bytes => Lookup::Bytes(e.table_of_bytes(scales, index)),
            Kind::Values => Lookup::Values(e.table(scales, index, self.scales)),
        }
    }

    /// The vectors of a block of codes.
    pub fn decode<'c>(
        &self,
        e: &Emit<'c, '_>,
        block: PointerValue<'c>,
        lookup: &Lookup<'c>,
    ) -> Vec<VectorValue<'c>> {
        match lookup {
            Lookup::Pairs(table) => vec![e.decode_pairs(block, *table)],
            Lookup::Bytes(table) => e.decode_bytes(block, *table).to_vec(),
            Lookup::Values(table) => {
                let [a, b] = e.decode_block(block, table);
                let order = self.order();
                order.iter().map(|lanes| e.shuffle(a, b, |n| lanes[n as usize], self.lanes)).collect()
            }
        }
    }

    /// `sum + Σ a·b`, in which lanes add up the products of their channels.
    pub fn multiply_add<'c>(
        &self,
        e: &Emit<'c, '_>,
        sum: VectorValue<'c>,
        a: VectorValue<'c>,
        b: VectorValue<'c>,
    ) -> VectorValue<'c> {
        match self.kind {
            Kind::Pairs => {
                let args = [sum.into(), a.into(), b.into()];
                e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", &[], &args).into_vector_value()
            }
            _ => e.fma(a, b, sum),
        }
    }

    /// The type of sums that go on in f64: half as many lanes.
    pub fn wide<'c>(&self, e: &Emit<'c, '_>) -> VectorType<'c> {
        e.ctx.f64_type().vec_type(self.lanes / 2)
    }

    /// Adds a sum to one in f64.
    pub fn promote<'c>(&self, e: &Emit<'c, '_>, sum: PointerValue<'c>, total: PointerValue<'c>) {
        let sum = self.widen(e, e.load(self.sum(e), sum, 4).into_vector_value());
        e.store(total, e.fadd(e.load(self.wide(e), total, 8).into_vector_value(), sum), 8);
    }

    /// All of a sum in f64.
    pub fn total<'c>(&self, e: &Emit<'c, '_>, total: PointerValue<'c>) -> FloatValue<'c> {
        e.reduce_wide(e.load(self.wide(e), total, 8).into_vector_value())
    }

    /// The lanes of a sum in f64, two added up to one.
    fn widen<'c>(&self, e: &Emit<'c, '_>, sum: VectorValue<'c>) -> VectorValue<'c> {
        let half = self.lanes / 2;
        let [low, high] = [0, half].map(|first| {
            let half = e.shuffle(sum, sum, |lane| lane + first, half);
            super::ok(e.b.build_float_ext(half, self.wide(e), ""))
        });
        e.fadd(low, high)
    }
}
