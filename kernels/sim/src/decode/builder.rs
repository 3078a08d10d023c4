//! A kernel under construction: scopes of names, rows, labels.

use std::collections::{BTreeMap, HashMap};

use super::names::{RegisterGroup, special};
use super::{Call, decode};
use crate::flow;
use crate::program::{Constant, Inst, Kernel, Location, Op, Place, Reg, Variable};
use crate::ptx::{Declaration, ParseError, Statement};
use crate::types::Type;

/// More rows than any kernel needs.
const MOST_ROWS: u32 = 1 << 18;

/// Collects the code of one kernel.
pub(crate) struct Builder<'a> {
    pub kernel: Kernel,
    /// Variables of the module.
    globals: HashMap<String, Constant>,
    scopes: Vec<Scope<'a>>,
    next_scope: usize,
    labels: HashMap<(usize, &'a str), u32>,
    tables: HashMap<(usize, &'a str), Vec<&'a str>>,
    fixups: Vec<Fixup<'a>>,
    constants: BTreeMap<Constant, Reg>,
    types: Vec<Type>,
    location: u32,
    carry: Option<Reg>,
}

#[derive(Default)]
struct Scope<'a> {
    id: usize,
    registers: HashMap<&'a str, RegisterGroup>,
    symbols: HashMap<&'a str, Constant>,
}

/// A branch whose label is not known yet.
struct Fixup<'a> {
    inst: usize,
    label: &'a str,
    scopes: Vec<usize>,
    line: u32,
}

const BITS64: Type = Type { kind: crate::types::Kind::Bits, bits: 64, packed: 1 };

impl<'a> Builder<'a> {
    pub fn new(name: &str, line: u32, variables: &[Variable]) -> Self {
        let mut builder = Self {
            kernel: Kernel { name: name.to_owned(), line, dynamic_align: 16, ..Kernel::default() },
            globals: HashMap::new(),
            scopes: vec![Scope::default()],
            next_scope: 1,
            labels: HashMap::new(),
            tables: HashMap::new(),
            fixups: vec![],
            constants: BTreeMap::new(),
            types: vec![],
            location: 0,
            carry: None,
        };
        builder.kernel.locations.push(Location::default());
        builder.constant(Constant::Bits(0));
        for (index, variable) in variables.iter().enumerate() {
            let constant = builder.place(index, variable);
            builder.globals.insert(variable.name.clone(), constant);
        }
        builder
    }

    fn place(&mut self, index: usize, variable: &Variable) -> Constant {
        match variable.place {
            Place::Global | Place::Constant => Constant::Variable(index, 0),
            Place::Shared => Constant::Shared(self.reserve_shared(variable.align, variable.bytes)),
            Place::Dynamic => {
                self.kernel.dynamic_align = self.kernel.dynamic_align.max(variable.align);
                Constant::Dynamic(0)
            }
        }
    }

    fn reserve_shared(&mut self, align: usize, bytes: usize) -> u64 {
        let at = self.kernel.shared_bytes.next_multiple_of(align);
        self.kernel.shared_bytes = at + bytes;
        at as u64
    }

    pub fn parameter(&mut self, declaration: &Declaration<'a>) {
        let at = self.kernel.parameter_bytes.next_multiple_of(declaration.align);
        self.kernel.parameter_bytes = at + declaration.bytes;
        self.scopes[0].symbols.insert(declaration.name, Constant::Parameter(at as u64));
    }

    pub fn variable(&mut self, space: &str, d: &Declaration<'a>, line: u32) -> Result<(), ParseError> {
        if !d.init.is_empty() {
            return Err(ParseError::new(line, format!("`{}` cannot have an initial value", d.name)));
        }
        let constant = if space == ".shared" {
            Constant::Shared(self.reserve_shared(d.align, d.bytes))
        } else {
            let at = self.kernel.local_bytes.next_multiple_of(d.align);
            self.kernel.local_bytes = at + d.bytes;
            Constant::Local(at as u64)
        };
        self.scope().symbols.insert(d.name, constant);
        Ok(())
    }

    pub fn registers(
        &mut self,
        ty: &str,
        name: &'a str,
        count: Option<u32>,
        line: u32,
    ) -> Result<(), ParseError> {
        let unknown = || ParseError::new(line, format!("`{ty}` is not a type of registers"));
        let ty = ty.strip_prefix('.').and_then(Type::parse).ok_or_else(unknown)?;
        let first = self.kernel.rows;
        let size = count.unwrap_or(1);
        if size > MOST_ROWS || first + size > MOST_ROWS {
            return Err(ParseError::new(line, "too many registers"));
        }
        self.kernel.rows += size;
        self.types.resize(self.kernel.rows as usize, ty);
        self.scope().registers.insert(name, RegisterGroup { first, count });
        Ok(())
    }

    pub fn open(&mut self) {
        self.scopes.push(Scope { id: self.next_scope, ..Scope::default() });
        self.next_scope += 1;
    }

    pub fn close(&mut self) {
        if self.scopes.len() > 1 {
            self.scopes.pop();
        }
    }

    fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("the outermost scope stays")
    }

    pub fn location(&mut self, at: (u32, u32), outer: Option<(u32, u32)>) {
        let outer_file = outer.map_or(0, |o| o.0);
        self.kernel.files_used = self.kernel.files_used.max(at.0 as usize).max(outer_file as usize);
        self.kernel.locations.push(Location { at, outer });
        self.location = self.kernel.locations.len() as u32 - 1;
    }

    pub fn label(&mut self, name: &'a str, line: u32) -> Result<(), ParseError> {
        let (scope, here) = (self.scope().id, self.kernel.code.len() as u32);
        match self.labels.insert((scope, name), here) {
            None => Ok(()),
            Some(_) => Err(ParseError::new(line, format!("label `{name}` is defined twice"))),
        }
    }

    pub fn table(&mut self, name: &'a str, targets: Vec<&'a str>, line: u32) -> Result<(), ParseError> {
        let scope = self.scope().id;
        match self.tables.insert((scope, name), targets) {
            None => Ok(()),
            Some(_) => Err(ParseError::new(line, format!("table `{name}` is defined twice"))),
        }
    }

    pub fn instruction(&mut self, statement: &Statement<'a>) -> Result<(), ParseError> {
        let mut call = Call::new(self, statement)?;
        decode(&mut call)
    }

    pub fn emit(&mut self, mut inst: Inst) {
        inst.location = self.location;
        self.kernel.code.push(inst);
    }

    /// The instruction emitted next jumps to this label, or to a label of this table.
    pub fn jump(&mut self, label: &'a str, line: u32) {
        let scopes = self.scopes.iter().map(|s| s.id).collect();
        self.fixups.push(Fixup { inst: self.kernel.code.len(), label, scopes, line });
    }

    /// A new row that no name refers to.
    pub fn scratch(&mut self) -> Reg {
        self.kernel.rows += 1;
        self.types.push(BITS64);
        self.kernel.rows - 1
    }

    /// The row of the carry that `.cc` sets.
    pub fn carry(&mut self) -> Reg {
        if self.carry.is_none() {
            self.carry = Some(self.scratch());
        }
        self.carry.unwrap_or_default()
    }

    pub fn constant(&mut self, constant: Constant) -> Reg {
        if let Some(row) = self.constants.get(&constant) {
            return *row;
        }
        let row = self.scratch();
        self.constants.insert(constant, row);
        row
    }

    pub fn register(&self, name: &str) -> Option<Reg> {
        self.scopes.iter().rev().find_map(|s| RegisterGroup::find(&s.registers, name))
    }

    /// Row of a register, special register or symbol (plus offset).
    pub fn name(&mut self, name: &str, offset: i64) -> Option<Reg> {
        if let Some(row) = self.register(name) {
            return (offset == 0).then_some(row);
        }
        if let Some(special) = special(name) {
            return Some(self.constant(Constant::Special(special)));
        }
        let local = self.scopes.iter().rev().find_map(|s| s.symbols.get(name));
        let symbol = *local.or_else(|| self.globals.get(name))?;
        Some(self.constant(moved(symbol, offset)))
    }

    pub fn type_of(&self, row: Reg) -> Type {
        self.types[row as usize]
    }

    /// Resolves branches and finds where their threads meet again.
    pub fn finish(mut self) -> Result<Kernel, ParseError> {
        self.kernel.code.push(Inst::exit());
        for fixup in std::mem::take(&mut self.fixups) {
            self.resolve(&fixup)?;
        }
        self.kernel.constants = self.constants.into_iter().map(|(c, row)| (row, c)).collect();
        flow::set_rejoins(&mut self.kernel.code);
        Ok(self.kernel)
    }

    fn resolve(&mut self, fixup: &Fixup<'a>) -> Result<(), ParseError> {
        let find = |label: &'a str| {
            let target = fixup.scopes.iter().rev().find_map(|s| self.labels.get(&(*s, label)));
            target.copied().ok_or_else(|| ParseError::new(fixup.line, format!("no label `{label}`")))
        };
        match &mut self.kernel.code[fixup.inst].op {
            Op::BranchTable { targets, .. } => {
                let table = fixup.scopes.iter().rev().find_map(|s| self.tables.get(&(*s, fixup.label)));
                let missing = || ParseError::new(fixup.line, format!("no table `{}`", fixup.label));
                let names = table.ok_or_else(missing)?;
                *targets = names.iter().map(|n| find(n)).collect::<Result<_, _>>()?;
            }
            Op::Branch { target, .. } => *target = find(fixup.label)?,
            _ => {}
        }
        Ok(())
    }
}

fn moved(symbol: Constant, by: i64) -> Constant {
    let by = by as u64;
    match symbol {
        Constant::Shared(at) => Constant::Shared(at.wrapping_add(by)),
        Constant::Dynamic(at) => Constant::Dynamic(at.wrapping_add(by)),
        Constant::Parameter(at) => Constant::Parameter(at.wrapping_add(by)),
        Constant::Local(at) => Constant::Local(at.wrapping_add(by)),
        Constant::Variable(index, at) => Constant::Variable(index, at.wrapping_add(by)),
        other => other,
    }
}
