//! One statement being decoded: its operands as rows, and the instructions that it becomes.

use super::{Builder, Modifiers};
use crate::op::{Address, Space};
use crate::program::{Constant, Inst, Lanes, Op, Reg};
use crate::ptx::{Operand, ParseError, Statement};
use crate::types::{Kind, Type};

/// A statement, the modifiers not consumed yet, and the rows touched so far.
pub(crate) struct Call<'b, 'a> {
    pub builder: &'b mut Builder<'a>,
    pub statement: &'b Statement<'a>,
    pub m: Modifiers<'a>,
    guard: Option<(Reg, bool)>,
    uses: Vec<Reg>,
    defs: Vec<Reg>,
    emitted: usize,
    /// How many operands the instruction may have at most.
    operands_seen: usize,
}

impl<'b, 'a> Call<'b, 'a> {
    pub fn new(builder: &'b mut Builder<'a>, statement: &'b Statement<'a>) -> Result<Self, ParseError> {
        let m = Modifiers::new(statement.opcode);
        let (uses, defs) = (vec![], vec![]);
        let mut call = Self { builder, statement, m, guard: None, uses, defs, emitted: 0, operands_seen: 0 };
        if let Some((name, negated)) = statement.guard {
            let row = call.builder.register(name);
            let row = row.ok_or_else(|| call.error(format!("`{name}` is not declared")))?;
            call.guard = Some((row, negated));
            call.uses.push(row);
        }
        Ok(call)
    }

    pub fn opcode(&self) -> &'a str {
        self.statement.opcode
    }

    pub fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::new(self.statement.line, message)
    }

    pub fn unsupported(&self) -> ParseError {
        self.error(format!("this form of `{}` is not supported", self.opcode()))
    }

    /// The type among the modifiers.
    pub fn ty(&mut self) -> Result<Type, ParseError> {
        let found = self.m.ty();
        found.ok_or_else(|| self.error(format!("`{}` has no type", self.opcode())))
    }

    pub fn count(&self) -> usize {
        self.statement.operands.len()
    }

    pub fn operand(&mut self, index: usize) -> Result<&'b Operand<'a>, ParseError> {
        self.operands_seen = self.operands_seen.max(index + 1);
        let found = self.statement.operands.get(index);
        found.ok_or_else(|| self.error(format!("`{}` needs more operands", self.opcode())))
    }

    /// Row of a source operand; immediates take the width of the type.
    pub fn src(&mut self, index: usize, ty: Type) -> Result<Reg, ParseError> {
        let operand = self.operand(index)?;
        self.source(operand, ty)
    }

    pub fn source(&mut self, operand: &Operand<'a>, ty: Type) -> Result<Reg, ParseError> {
        let row = match operand {
            Operand::Name(name, offset) => self.named(name, *offset)?,
            Operand::Not(name) => self.negation(name)?,
            Operand::Int(value) => {
                let value =
                    if ty.kind == Kind::Predicate { u64::from(*value != 0) } else { truncate(*value, ty) };
                self.builder.constant(Constant::Bits(value))
            }
            Operand::F32(bits) => self.builder.constant(Constant::Bits((*bits).into())),
            Operand::F64(bits) if ty.bits == 32 => {
                let narrow = (f64::from_bits(*bits) as f32).to_bits();
                self.builder.constant(Constant::Bits(narrow.into()))
            }
            Operand::F64(bits) => self.builder.constant(Constant::Bits(*bits)),
            _ => return Err(self.error("a register or a constant is expected here")),
        };
        self.uses.push(row);
        Ok(row)
    }

    fn named(&mut self, name: &str, offset: i64) -> Result<Reg, ParseError> {
        let row = self.builder.name(name, offset);
        row.ok_or_else(|| self.error(format!("`{name}` is not declared")))
    }

    fn negation(&mut self, name: &str) -> Result<Reg, ParseError> {
        let row = self.named(name, 0)?;
        let d = self.builder.scratch();
        self.uses.push(row);
        self.lanes(super::lanes!(|a| a ^ 1), d, &[row]);
        Ok(d)
    }

    /// Row of a destination register; `_` is a row that no one reads.
    pub fn dst(&mut self, index: usize) -> Result<Reg, ParseError> {
        let operand = self.operand(index)?;
        self.destination(operand)
    }

    pub fn destination(&mut self, operand: &Operand<'a>) -> Result<Reg, ParseError> {
        match operand {
            Operand::Name("_", 0) => Ok(self.builder.scratch()),
            Operand::Name(name, 0) => self.destination_name(name),
            _ => Err(self.error("a register is expected here")),
        }
    }

    fn destination_name(&mut self, name: &str) -> Result<Reg, ParseError> {
        if name == "_" {
            return Ok(self.builder.scratch());
        }
        let row = self.builder.register(name);
        let row = row.ok_or_else(|| self.error(format!("register `{name}` is not declared")))?;
        self.defs.push(row);
        Ok(row)
    }

    /// `d` or `d|p`; without `p` the second row is one that no one reads.
    pub fn dst_pair(&mut self, index: usize) -> Result<(Reg, Reg), ParseError> {
        if let Operand::Pair(d, p) = self.operand(index)? {
            return Ok((self.destination_name(d)?, self.destination_name(p)?));
        }
        Ok((self.dst(index)?, self.builder.scratch()))
    }

    /// Rows of a vector of sources, or of a single one.
    pub fn src_vector(&mut self, index: usize, ty: Type) -> Result<Vec<Reg>, ParseError> {
        match self.operand(index)? {
            Operand::Vector(items) => items.iter().map(|o| self.source(o, ty)).collect(),
            _ => Ok(vec![self.src(index, ty)?]),
        }
    }

    pub fn dst_vector(&mut self, index: usize) -> Result<Vec<Reg>, ParseError> {
        match self.operand(index)? {
            Operand::Vector(items) => items.iter().map(|o| self.destination(o)).collect(),
            _ => Ok(vec![self.dst(index)?]),
        }
    }

    /// `[base+offset]` without coordinates.
    pub fn address(&mut self, index: usize, space: Space) -> Result<Address, ParseError> {
        let (address, coordinates) = self.tensor_address(index, space)?;
        if coordinates.is_empty() {
            Ok(address)
        } else {
            Err(self.error("coordinates are not expected here"))
        }
    }

    pub fn tensor_address(&mut self, index: usize, space: Space) -> Result<(Address, Vec<Reg>), ParseError> {
        let Operand::Address { base, coordinates } = self.operand(index)? else {
            return Err(self.error("an address is expected here"));
        };
        let (row, offset) = match &**base {
            Operand::Name(name, offset) if self.builder.register(name).is_some() => {
                (self.named(name, 0)?, *offset)
            }
            other => (self.source(other, U64)?, 0),
        };
        self.uses.push(row);
        let coordinates = coordinates.iter().map(|c| self.source(c, S32)).collect::<Result<_, _>>()?;
        Ok((Address { space, row, offset }, coordinates))
    }

    /// An immediate.
    pub fn immediate(&mut self, index: usize) -> Result<u64, ParseError> {
        match self.operand(index)? {
            Operand::Int(value) => Ok(*value),
            _ => Err(self.error("an immediate is expected here")),
        }
    }

    pub fn lanes(&mut self, f: Lanes, d: Reg, sources: &[Reg]) {
        let mut s = [0; 4];
        s[..sources.len()].copy_from_slice(sources);
        self.emit(Op::Lanes { f, d, s, copies: false });
    }

    pub fn emit(&mut self, op: Op) {
        let (uses, defs) = (self.uses.clone().into(), self.defs.clone().into());
        let (line, first) = (self.statement.line, self.emitted == 0);
        self.emitted += 1;
        self.builder.emit(Inst { op, guard: self.guard, line, location: 0, first, uses, defs });
    }

    /// Refuses modifiers and operands that no decoder asked for, and guards that their own instruction rewrites.
    pub fn finish(&self) -> Result<(), ParseError> {
        if let Some(modifier) = self.m.left().first() {
            return Err(self.error(format!("modifier `.{modifier}` of `{}` is not supported", self.opcode())));
        }
        if self.emitted > 1 && self.guard.is_some_and(|(row, _)| self.defs.contains(&row)) {
            return Err(self.error("the guard is also a result of this instruction, which is not supported"));
        }
        if self.operands_seen < self.count() {
            return Err(self.error(format!("`{}` has too many operands", self.opcode())));
        }
        Ok(())
    }
}

impl Inst {
    pub fn exit() -> Self {
        Self {
            op: Op::Exit,
            guard: None,
            line: 0,
            location: 0,
            first: true,
            uses: [].into(),
            defs: [].into(),
        }
    }
}

pub(crate) const U64: Type = Type { kind: Kind::Unsigned, bits: 64, packed: 1 };
pub(crate) const U32: Type = Type { kind: Kind::Unsigned, bits: 32, packed: 1 };
pub(crate) const S32: Type = Type { kind: Kind::Signed, bits: 32, packed: 1 };
pub(crate) const PRED: Type = Type { kind: Kind::Predicate, bits: 1, packed: 1 };

fn truncate(value: u64, ty: Type) -> u64 {
    if ty.bits >= 64 { value } else { value & ((1 << ty.bits) - 1) }
}
