//! A step on a GPU, every launch of the plan against the interpreter.

use fireq_ir::interp::{Data, Tensor};
use fireq_ir::plan::{BufferId, Kernel, Place, Step as Sizes};
use fireq_ir::quant::Quantized;
use fireq_ir::{Type, e4m3};
use fireq_kernels::cuda::DecodeAttention;
use fireq_kernels::pages::{At, Part};

use super::executor::Executor;
use super::room::PAGE;
use super::step::{Piece, Step};
use crate::RuntimeError;
use crate::compare::{Compared, columns, compare, tensor, type_in};

impl Executor {
    /// Runs a step of one piece, and compares what each launch of the plan leaves with the interpreter's result for the operands
    /// that it had.
    pub fn compare(&mut self, piece: &Piece<'_>) -> Result<Vec<Compared>, RuntimeError> {
        let pieces = std::slice::from_ref(piece);
        let step = self.prepare(pieces, &[])?;
        let sizes = Sizes { tokens: piece.tokens.len(), past: piece.past, selected: piece.selected.len() };
        let (mut compared, mut next) = (vec![], 0);
        for n in 0..self.launches() {
            self.run_alone(n, &step)?;
            let result = |n: usize| self.launch(n).result;
            // The plan's launch is done with the last of those that leave its result.
            if n + 1 < self.launches() && result(n) == result(n + 1) {
                continue;
            }
            let done = self.plan().launches.iter().position(|launch| Some(launch.output) == result(n));
            for at in next..done.map_or(next, |done| done + 1) {
                let launch = &self.plan().launches[at];
                let rows = sizes.rows(&self.plan().buffers[launch.output].ty.shape.rows());
                if rows > 0 && !matches!(launch.kernel, Kernel::Slice { .. }) {
                    let value = |buffer| self.value(buffer, sizes, piece);
                    compared.push(compare(self.plan(), launch, sizes, &value)?);
                }
            }
            next = next.max(done.map_or(0, |done| done + 1));
        }
        Ok(compared)
    }

    /// Runs one of a step's launches to its end.
    fn run_alone(&mut self, n: usize, step: &Step<'_>) -> Result<(), RuntimeError> {
        let ran = self.run_launch(n, step).and_then(|()| self.synchronize());
        ran.map_err(|error| {
            let launch = self.launch(n);
            error.of(&format!("`{}` ({})", launch.symbol, launch.function))
        })
    }

    /// What a buffer holds; slices are read where they are, caches from their pages.
    fn value(&self, buffer: BufferId, sizes: Sizes, piece: &Piece<'_>) -> Result<Tensor, RuntimeError> {
        let plan = self.plan();
        let ty = type_in(plan, buffer, sizes);
        let of = plan.launches.iter().find(|launch| launch.output == buffer);
        if let Some((Kernel::Slice { start, size }, whole)) = of.map(|l| (&l.kernel, l.inputs[0])) {
            return Ok(columns(&self.value(whole, sizes, piece)?, *start, *size));
        }
        if let Place::Cache(name) = &plan.buffers[buffer].place {
            return self.cache(name, &ty, piece);
        }
        tensor(&ty, plan.buffers[buffer].storage, |part, bytes| self.read(buffer, part, bytes))
    }

    /// The rows of a cache that the sequence has filled. Keys and values of a layer share pages, which have the name of its
    /// keys.
    fn cache(&self, name: &str, ty: &Type, piece: &Piece<'_>) -> Result<Tensor, RuntimeError> {
        let missing = || RuntimeError::Program(format!("cache `{name}` has no pages"));
        let attention: DecodeAttention = self.attention().ok_or_else(missing)?;
        let (region, part) = self.pages_of(name).ok_or_else(missing)?;
        let pool = self.read_region(region)?;
        let (layout, cols) = (attention.pages(), ty.shape.cols().fixed().unwrap_or(0));
        let (mut codes, mut scales) = (vec![], vec![]);
        for position in 0..ty.shape.rows().fixed().unwrap_or(0) {
            let page = piece.pages[position / PAGE] as usize;
            for kv_head in 0..attention.kv_heads {
                let (of_head, scale) =
                    layout.read(&pool, At { page, position: position % PAGE, kv_head }, part);
                codes.extend(of_head);
                scales.push(e4m3::decode(scale));
            }
        }
        let format = ty.format();
        let data = Data::Quant(Quantized { format, cols, codes, scales: vec![scales] });
        Ok(Tensor { ty: ty.clone(), data })
    }

    /// The region of a cache's pages, and which part of them it is.
    fn pages_of(&self, name: &str) -> Option<(usize, Part)> {
        let plan = self.plan();
        let cache = |buffer: BufferId| match &plan.buffers[buffer].place {
            Place::Cache(name) => Some(name.clone()),
            _ => None,
        };
        plan.launches.iter().filter(|launch| matches!(launch.kernel, Kernel::Attention { .. })).find_map(
            |launch| {
                let [keys, values] = [1, 2].map(|n| cache(launch.inputs[n]));
                let region = self.region(&format!("pages of {}", keys.as_deref()?))?;
                match name {
                    _ if keys.as_deref() == Some(name) => Some((region, Part::Keys)),
                    _ if values.as_deref() == Some(name) => Some((region, Part::Values)),
                    _ => None,
                }
            },
        )
    }
}
