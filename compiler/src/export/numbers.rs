//! The numbers of weights, some rows at a time: computed from a graph's constants, or unpacked from an artifact.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use fireq_ir::fused::expand;
use fireq_ir::interp::{Data, InterpError, Tensor};
use fireq_ir::plan::{Buffer, Lowered, Part, Place, Storage, pack_rows, parts, pieces, unpack};
use fireq_ir::quant::Quantized;
use fireq_ir::{Dim, Graph, Op, Shape, Type, ValueId};
use fireq_runtime::{Artifact, RuntimeError, Weights};

use super::ExportError;
use crate::build::{Plans, Targets};
use crate::compile::CompileError;

/// Where numbers come from.
pub(super) enum Numbers {
    /// The graph's own constants.
    Graph,
    /// An artifact's weights.
    Packed(Packed),
}

/// The weights of an artifact, and which rows of them are which values of its graph.
pub(super) struct Packed {
    weights: Weights,
    places: BTreeMap<ValueId, Rows>,
}

/// Rows of a weight.
struct Rows {
    weight: Arc<str>,
    buffer: Arc<Buffer>,
    /// The first of them; of a vector the first element.
    start: usize,
}

/// Numbers that are looked at together: few enough to be small beside a tensor.
const PIECE: usize = 1 << 17;

impl Numbers {
    /// The rows of a value in pieces to be asked for one by one; all of them where they depend on each other.
    pub fn pieces(&self, graph: &Graph, value: ValueId) -> Vec<Range<usize>> {
        match self {
            Numbers::Graph => pieces(graph, value, Storage::Plain),
            Numbers::Packed(_) => {
                let shape = &graph.ty(value).shape;
                let (rows, cols) = (shape.rows().fixed().unwrap_or(0), shape.cols().fixed().unwrap_or(0));
                let piece = (PIECE / cols.max(1)).max(1);
                (0..rows).step_by(piece).map(|start| start..(start + piece).min(rows)).collect()
            }
        }
    }

    /// Some rows of a value.
    pub fn rows(&self, graph: &Graph, value: ValueId, rows: Range<usize>) -> Result<Tensor, ExportError> {
        match self {
            Numbers::Graph => computed(graph, value, rows),
            Numbers::Packed(packed) => packed.rows(graph.ty(value), value, rows),
        }
    }

    /// Gives back the memory of what is mapped for a value; who asks for its rows again has them read again.
    pub fn release(&self, graph: &Graph, value: ValueId) {
        let Numbers::Graph = self else { return };
        for operand in graph.operands(value) {
            self.release(graph, operand);
        }
        if let Op::Const { name } = graph.op(value)
            && let Some(data) = graph.constants.get(name)
        {
            data.release();
        }
    }
}

/// Rows of an expression over a graph's constants.
fn computed(graph: &Graph, value: ValueId, rows: Range<usize>) -> Result<Tensor, ExportError> {
    let mut ty = graph.ty(value).clone();
    if ty.shape.0.len() == 2 {
        ty.shape = Shape::matrix(rows.len(), ty.shape.cols());
    }
    let packed = pack_rows(graph, value, Storage::Plain, rows)?;
    let arrays: Vec<&[u8]> = packed.iter().map(|(_, bytes)| &**bytes).collect();
    Ok(unpack(&ty, Storage::Plain, &arrays).ok_or_else(|| wrong_size(&ty))?)
}

fn wrong_size(ty: &Type) -> InterpError {
    InterpError::Op { op: "const", reason: format!("its data does not have the size of {ty}") }
}

impl Packed {
    /// The weights of an artifact whose graph this is: those for CPUs where it has them.
    pub fn open(artifact: &Artifact, graph: &Graph) -> Result<Self, ExportError> {
        let cpu = artifact.manifest.target.is_some();
        let graph = if cpu { expand(graph)? } else { graph.clone() };
        let plans = Plans::of(&graph, Targets { cpu, cuda: !cpu });
        let (weights, plan) = if cpu {
            (artifact.weights()?, artifact.plan.clone())
        } else {
            (artifact.cuda_weights()?, artifact.cuda_plan()?)
        };
        let Plans { cpu, cuda } = plans.map_err(|error| lowering(error, &artifact.dir))?;
        let cuda = cuda.as_ref().map(|(fused, lowered)| (fused, lowered));
        let (graph, lowered) =
            cpu.as_ref().map(|lowered| (&graph, lowered)).or(cuda).expect("one of them was asked for");
        if lowered.plan != plan {
            return Err(ExportError::Foreign(artifact.dir.clone()));
        }
        Ok(Packed { weights, places: places(graph, lowered) })
    }

    fn rows(&self, ty: &Type, value: ValueId, rows: Range<usize>) -> Result<Tensor, ExportError> {
        let missing = || RuntimeError::Weight { name: ty.to_string(), reason: "is missing".into() };
        let Rows { weight, buffer, start } = self.places.get(&value).ok_or_else(missing)?;
        let arrays = self.weights.parts(weight, buffer)?;
        let bad = || RuntimeError::Weight { name: weight.to_string(), reason: "cannot be unpacked".into() };
        if ty.shape.0.len() < 2 {
            let all = unpack(&buffer.ty, buffer.storage, &arrays).ok_or_else(bad)?;
            let size = ty.shape.cols().fixed().ok_or_else(bad)?;
            return Ok(Tensor { ty: ty.clone(), ..part_of(&all, *start..start + size, 1) });
        }
        let (rows, all) = (start + rows.start..start + rows.end, buffer.ty.shape.rows().fixed().unwrap_or(0));
        let list = parts(&buffer.ty, buffer.storage).ok_or_else(bad)?;
        let tile = list.iter().map(|part| part.row_tile).max().unwrap_or(1);
        let tiles = rows.start / tile * tile..rows.end.next_multiple_of(tile).min(all);
        let bytes = |part: &Part, rows| part.stored(rows).map_or(0, |(_, bytes)| bytes);
        let arrays = list.iter().zip(&arrays);
        let arrays: Vec<&[u8]> =
            arrays.map(|(part, array)| &array[bytes(part, tiles.start)..bytes(part, tiles.end)]).collect();
        let cut = Type { shape: Shape::matrix(tiles.len(), buffer.ty.shape.cols()), ..buffer.ty.clone() };
        let tensor = unpack(&cut, buffer.storage, &arrays).ok_or_else(bad)?;
        let cols = tensor.cols();
        Ok(part_of(&tensor, rows.start - tiles.start..rows.end - tiles.start, cols))
    }
}

/// What cannot be lowered was not compiled to the plan that is there.
fn lowering(error: CompileError, dir: &Path) -> ExportError {
    match error {
        CompileError::Lower(error) => error.into(),
        _ => ExportError::Foreign(dir.into()),
    }
}

/// Where the values are that a plan's weights are put together from.
fn places(graph: &Graph, lowered: &Lowered) -> BTreeMap<ValueId, Rows> {
    let mut places = BTreeMap::new();
    for buffer in &lowered.plan.buffers {
        let Place::Weight(name) = &buffer.place else { continue };
        let buffer = Arc::new(buffer.clone());
        let mut stack = vec![(lowered.weights[name], 0)];
        while let Some((value, start)) = stack.pop() {
            if let (Op::Concat, [a, b]) = (graph.op(value), &graph.operands(value)[..]) {
                let first = graph.ty(*a).shape.0.first().and_then(Dim::fixed).unwrap_or(0);
                stack.extend([(*a, start), (*b, start + first)]);
            }
            places.entry(value).or_insert_with(|| Rows {
                weight: name.clone(),
                buffer: buffer.clone(),
                start,
            });
        }
    }
    places
}

/// Rows of a tensor, which have `cols` elements.
fn part_of(tensor: &Tensor, rows: Range<usize>, cols: usize) -> Tensor {
    let data = match &tensor.data {
        Data::Float(values) => Data::Float(values[rows.start * cols..rows.end * cols].to_vec()),
        Data::Int(values) => Data::Int(values[rows.start * cols..rows.end * cols].to_vec()),
        Data::Quant(q) => {
            let counts = q.format.scheme.0.iter().map(|level| level.count(q.cols));
            let scales = q.scales.iter().zip(counts).map(|(s, n)| s[rows.start * n..rows.end * n].to_vec());
            let codes = q.codes[rows.start * cols..rows.end * cols].to_vec();
            Data::Quant(Quantized { scales: scales.collect(), codes, format: q.format.clone(), cols })
        }
    };
    Tensor { ty: Type { shape: Shape::matrix(rows.len(), cols), ..tensor.ty.clone() }, data }
}
