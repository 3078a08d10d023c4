//! What the parameters of a plan's kernels are: fields of their structures by name, in order.

mod attention;
mod products;

use std::cell::RefCell;

use fireq_ir::plan::{Kernel, Launch, Place, Plan};
use fireq_ir::{DType, Dim};
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::program::{Argument, Count, Extent, Region, Table, parameters};

pub(super) use attention::Attended;

/// Binds launches of a plan, and notes which regions they need.
pub(super) struct Binder<'a> {
    pub plan: &'a Plan,
    regions: RefCell<Vec<Region>>,
}

/// Rows in memory: where they begin, and the numbers from one to the next.
pub(super) struct Rows {
    at: Argument,
    stride: usize,
}

impl<'a> Binder<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Binder { plan, regions: RefCell::default() }
    }

    /// The regions of all that was bound.
    pub fn into_regions(self) -> Vec<Region> {
        self.regions.into_inner()
    }

    /// The arguments of a launch that one kernel does which takes operands and result as they are.
    pub fn plain(&self, launch: &Launch) -> Vec<Argument> {
        let out = &self.plan.buffers[launch.output].ty;
        let (input, result) = (|n: usize| part(launch.inputs[n], 0), part(launch.output, 0));
        let cols = out.shape.cols().fixed().unwrap_or(0);
        let weight = |n: usize| &self.plan.buffers[launch.inputs[n]].ty;
        match &launch.kernel {
            Kernel::Gather => {
                let rows = match weight(0).shape.rows() {
                    Dim::Fixed(rows) => number(rows),
                    Dim::Sym(_) => Argument::Count(Count::Tokens),
                };
                fields::<params::Gather>([
                    ("table", input(0)),
                    ("index", input(1)),
                    ("out", result),
                    ("rows", rows),
                ])
            }
            Kernel::RmsNorm { eps } => {
                let (x, run) = (self.rows(launch.inputs[0]), weight(1).shape.cols().fixed().unwrap_or(1));
                fields::<params::RmsNorm>([
                    ("x", x.at),
                    ("weight", input(1)),
                    ("out", result),
                    ("stride", number(x.stride)),
                    ("runs", number(cols / run.max(1))),
                    ("eps", Argument::F32(*eps)),
                ])
            }
            Kernel::NormQuantize { eps, .. } => fields::<params::NormQuantize>([
                ("x", input(0)),
                ("weight", input(1)),
                ("codes", result),
                ("scales", part(launch.output, 1)),
                ("eps", Argument::F32(*eps)),
            ]),
            Kernel::RopeTable => fields::<params::RopeTable>([
                ("positions", input(0)),
                ("inv_freq", input(1)),
                ("table", result),
                ("tokens", Argument::Count(Count::Tokens)),
            ]),
            Kernel::Quantize { .. } => quantize(launch, input(0)),
            Kernel::Linear => fields::<params::Logits>([
                ("x", input(0)),
                ("weight", input(1)),
                (
                    "scales",
                    if weight(1).scheme.is_plain() { Argument::Nothing } else { part(launch.inputs[1], 1) },
                ),
                ("out", result),
                ("tokens", Argument::Count(self.count(launch))),
                ("channels", number(cols)),
            ]),
            _ => fields::<params::Elementwise>([
                ("a", input(0)),
                ("b", input(1)),
                ("out", result),
                ("elements", Argument::Elements(cols)),
            ]),
        }
    }

    /// The arguments of the choice of tokens from this output.
    pub fn sample(&self, logits: usize) -> Vec<Argument> {
        fields::<params::Sample>([
            ("x", part(logits, 0)),
            ("draws", Argument::Table(Table::Draws)),
            ("index", self.region("chosen tokens", DType::I32.bits() / 8, Extent::Tokens)),
        ])
    }

    /// What the rows of a launch are.
    pub fn count(&self, launch: &Launch) -> Count {
        let rows = self.plan.buffers[launch.output].ty.shape.rows();
        if rows == Dim::sym("L") { Count::Selected } else { Count::Tokens }
    }

    /// The rows of a buffer, which may be a slice of another's.
    fn rows(&self, buffer: usize) -> Rows {
        let of = self.plan.launches.iter().find(|launch| launch.output == buffer);
        let ty = &self.plan.buffers[buffer].ty;
        match of.map(|launch| (&launch.kernel, launch.inputs[0])) {
            Some((Kernel::Slice { start, .. }, whole)) => {
                let Rows { at, stride } = self.rows(whole);
                let Argument::Buffer { buffer, part, offset } = at else { return Rows { at, stride } };
                Rows { at: Argument::Buffer { buffer, part, offset: offset + 4 * start }, stride }
            }
            _ => Rows { at: part(buffer, 0), stride: ty.shape.cols().fixed().unwrap_or(0) },
        }
    }

    /// The region of this name, which has as many bytes as the largest of its users wants.
    fn region(&self, name: &str, bytes: usize, per: Extent) -> Argument {
        Argument::Region { region: self.region_index(name, bytes, per), by_key: 0 }
    }

    fn region_index(&self, name: &str, bytes: usize, per: Extent) -> usize {
        let mut regions = self.regions.borrow_mut();
        let at = regions.iter().position(|region| region.name == name).unwrap_or_else(|| {
            regions.push(Region { name: name.into(), bytes, per });
            regions.len() - 1
        });
        regions[at].bytes = regions[at].bytes.max(bytes);
        at
    }

    /// The input of this name.
    fn input(&self, name: &str) -> Result<Argument, String> {
        let is_it = |place: &Place| matches!(place, Place::Input(found) if **found == *name);
        let at = self.plan.buffers.iter().position(|buffer| is_it(&buffer.place));
        at.map(|buffer| part(buffer, 0)).ok_or_else(|| format!("the plan has no input `{name}`"))
    }
}

/// The arguments of the quantizer that makes a launch's result of these rows.
pub(super) fn quantize(launch: &Launch, x: Argument) -> Vec<Argument> {
    let [codes, scales] = [0, 1].map(|n| part(launch.output, n));
    fields::<params::Quantize>([("x", x), ("codes", codes), ("scales", scales)])
}

/// As [`quantize`], of rows of gates and ups.
pub(super) fn swiglu(launch: &Launch, x: Argument) -> Vec<Argument> {
    let [codes, scales] = [0, 1].map(|n| part(launch.output, n));
    fields::<params::SwigluQuantize>([("x", x), ("codes", codes), ("scales", scales)])
}

/// A part of a buffer.
pub(super) fn part(buffer: usize, part: usize) -> Argument {
    Argument::Buffer { buffer, part, offset: 0 }
}

fn number(n: usize) -> Argument {
    Argument::U32(u32::try_from(n).unwrap_or(u32::MAX))
}

/// The arguments of a kernel that takes `P`.
///
/// # Panics
///
/// When names, order or places are not those of its fields: with any plan, as none of them depends on one.
fn fields<P: Params>(given: impl IntoIterator<Item = (&'static str, Argument)>) -> Vec<Argument> {
    let (names, arguments): (Vec<&str>, Vec<Argument>) = given.into_iter().unzip();
    let (size, places) = parameters(&arguments);
    assert_eq!(size, P::SIZE, "{}", P::TYPE);
    assert_eq!(names.into_iter().zip(places).collect::<Vec<_>>(), P::FIELDS, "{}", P::TYPE);
    arguments
}
