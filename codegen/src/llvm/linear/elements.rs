//! What products are made of: weights from codes and tables, activations in the same order, and how they add up. Values of
//! E4M3 have four significant bits, so that they are exact as bf16 and their products are exact as f32.

use std::ops::Range;

use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{FloatValue, IntValue, PointerValue, VectorValue};

use fireq_ir::DType;
use fireq_ir::plan::{BLOCK, LINE, LINEAR_ROWS, Storage};

use super::super::codes::Table;
use super::super::emit::{Emit, LANES};
use super::super::operand::Operand;
use super::super::target::Isa;

/// How far ahead codes are asked for: a page, into which processors do not look by themselves.
const AHEAD: usize = 4096;

/// How blocks of 32 channels are held between memory and sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// 32 bf16 in a register, two of which are multiplied into a lane of f32. A line of codes is a register, whose words have
    /// the channels of a vector in the same four bits each.
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
    /// Blocks that are worked on in one step, all under one scale: a line where rows are interleaved.
    pub step: usize,
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
        let step = if w.storage == Storage::Interleaved { LINE / BLOCK } else { 1 };
        Elements { kind, scales, lanes: e.registers.lanes as u32, step }
    }

    /// Bytes of a step's elements.
    pub fn bytes(&self) -> usize {
        self.step * BLOCK * if self.kind == Kind::Pairs { 2 } else { 4 }
    }

    /// Steps whose products add up in f32, before sums go on in f64: 64 products in each lane, which have eight significant
    /// bits each.
    pub fn chunk(&self) -> usize {
        2 * self.lanes as usize / self.step
    }

    /// Bytes from the codes of a step to those of the next.
    pub fn stride(&self) -> usize {
        if self.step == 1 { BLOCK / 2 } else { LINEAR_ROWS * LINE / 2 }
    }

    /// Asks for what a unit reads some steps after the codes of a step.
    pub fn prefetch<'c>(&self, e: &Emit<'c, '_>, codes: PointerValue<'c>) {
        e.prefetch(e.at(codes, e.index(AHEAD)), self.stride());
    }

    /// The first codes of each of a unit's channels.
    pub fn codes<'c>(
        &self,
        e: &Emit<'c, '_>,
        w: &Operand<'c>,
        unit: IntValue<'c>,
        channels: [IntValue<'c>; LINEAR_ROWS],
    ) -> [PointerValue<'c>; LINEAR_ROWS] {
        if self.step == 1 {
            return channels.map(|channel| w.row(e, 0, channel));
        }
        let first = e.mul(unit, LINEAR_ROWS);
        channels.map(|channel| e.row(w.row(e, 0, first), e.sub(channel, first), LINE / 2))
    }

    /// Bytes of a row of elements.
    pub fn row_bytes(&self, w: &Operand<'_>) -> usize {
        w.parts[0].0.cols / (self.step * BLOCK) * self.bytes()
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

    /// Where the vectors of a step have their channels.
    fn order(&self) -> Vec<Vec<u32>> {
        let (lanes, block) = (self.lanes, BLOCK as u32);
        let vector = |v: u32| -> Vec<u32> {
            // Of a block, for what is decoded block by block.
            let (first, v_of_block) = (v * lanes / block * block, v % (block / lanes));
            match self.kind {
                Kind::Pairs if self.step == 1 => (0..block).collect(),
                // A word has channels of its block: two neighbours in the low halves of its bytes, two more 16 further on.
                Kind::Pairs => (0..32).map(|n| n / 8 * 32 + n % 8 * 2 + v / 2 + v % 2 * 16).collect(),
                Kind::Values => (0..lanes).map(|n| v * lanes + n).collect(),
                // Bytes are unpacked within halves of a register, the low and the high ones; words are low and high in
                // doublewords.
                Kind::Bytes => (0..lanes)
                    .map(|n| first + n / 4 * 16 + v_of_block / 2 * 8 + n % 4 * 2 + v_of_block % 2)
                    .collect(),
            }
        };
        (0..self.vectors() as u32).map(vector).collect()
    }

    /// Writes a row of activations for weights `w` to `to`.
    pub fn pack<'c>(
        &self,
        e: &Emit<'c, '_>,
        x: &Operand<'c>,
        w: &Operand<'c>,
        row: PointerValue<'c>,
        to: PointerValue<'c>,
    ) {
        // Codes are padded to whole blocks; what is not coded ends with its channels.
        let cols = if x.ty.scheme.is_plain() { x.cols() } else { w.parts[0].0.cols };
        let channels = self.step * BLOCK;
        let step = |n: IntValue<'c>, have: usize| {
            let part = |skip: usize| {
                let have = have.saturating_sub(skip).min(LANES as usize) as u32;
                let words = if have == 0 {
                    e.constant(0.0)
                } else {
                    e.load_floats(row, e.add(e.mul(n, channels), e.index(skip)), x.stored(0), have)
                };
                if self.kind == Kind::Pairs { e.top_halves(words) } else { words }
            };
            let parts: Vec<_> = (0..channels).step_by(LANES as usize).map(part).collect();
            let to = e.row(to, n, self.bytes());
            for (v, order) in self.order().iter().enumerate() {
                self.store(e, to, v, e.collect(&parts, order));
            }
        };
        e.for_count(cols / channels, |n| step(n, channels));
        if !cols.is_multiple_of(channels) {
            step(e.index(cols / channels), cols % channels);
        }
    }

    /// Vectors of a step.
    pub fn vectors(&self) -> usize {
        self.bytes() / (4 * self.lanes as usize)
    }

    /// Vector `v` of a step.
    pub fn load<'c>(&self, e: &Emit<'c, '_>, step: PointerValue<'c>, v: usize) -> VectorValue<'c> {
        let at = e.at(step, e.index(v * 4 * self.lanes as usize));
        e.load(BasicTypeEnum::from(self.ty(e)), at, 4).into_vector_value()
    }

    pub fn store<'c>(&self, e: &Emit<'c, '_>, step: PointerValue<'c>, v: usize, vector: VectorValue<'c>) {
        e.store(e.at(step, e.index(v * 4 * self.lanes as usize)), vector, 4);
    }

    /// The values of codes under scale `index` of an array.
    pub fn lookup<'c>(&self, e: &Emit<'c, '_>, scales: PointerValue<'c>, index: IntValue<'c>) -> Lookup<'c> {
        match self.kind {
            Kind::Pairs => Lookup::Pairs(e.table_of_pairs(scales, index)),
            Kind::Bytes => Lookup::Bytes(e.table_of_bytes(scales, index)),
            Kind::Values => Lookup::Values(e.table(scales, index, self.scales)),
        }
    }

    /// The parts of a step that are decoded one after the other, each as the numbers of its vectors.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let vectors = self.vectors();
        let parts = if self.kind == Kind::Pairs { 1 } else { self.step };
        (0..parts).map(move |part| part * vectors / parts..(part + 1) * vectors / parts)
    }

    /// The vectors `part` of a step of codes.
    pub fn decode<'c>(
        &self,
        e: &Emit<'c, '_>,
        codes: PointerValue<'c>,
        part: Range<usize>,
        lookup: &Lookup<'c>,
    ) -> impl Iterator<Item = (usize, VectorValue<'c>)> {
        let codes = e.at(codes, e.index(part.start * self.lanes as usize / 2));
        let vectors = match lookup {
            Lookup::Pairs(table) if self.step == 1 => vec![e.decode_pairs(codes, *table)],
            Lookup::Pairs(table) => e.decode_words(codes, *table).to_vec(),
            Lookup::Bytes(table) => e.decode_bytes(codes, *table).to_vec(),
            Lookup::Values(table) => {
                let halves = e.decode_block(codes, table);
                self.order()[..part.len()].iter().map(|lanes| e.collect(&halves, lanes)).collect()
            }
        };
        part.zip(vectors)
    }

    /// `sum += Σ a·b`, in which lanes add up the products of their channels.
    pub fn accumulate<'c>(
        &self,
        e: &Emit<'c, '_>,
        sum: PointerValue<'c>,
        a: VectorValue<'c>,
        b: VectorValue<'c>,
    ) {
        let from = e.load(self.sum(e), sum, 4).into_vector_value();
        let to = match self.kind {
            Kind::Pairs => {
                let args = [from.into(), a.into(), b.into()];
                e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", &[], &args).into_vector_value()
            }
            _ => e.fma(a, b, from),
        };
        e.store(sum, to, 4);
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
