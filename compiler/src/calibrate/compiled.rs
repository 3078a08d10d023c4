//! Graphs executed as compiled code, for passes that look at numbers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fireq_codegen::llvm::{Cpu, compile};
use fireq_ir::Graph;
use fireq_ir::interp::{Data, Tensor};
use fireq_ir::plan::{Plan, Step, lower, output_name};
use fireq_passes::random::Tensors;
use fireq_passes::{Prepared, RunError, Runner, tokens};
use fireq_runtime::{Executor, Limits};
use tempfile::TempDir;

use crate::kernels::weights;

/// Runs graphs as code for this machine. Blocks of equal shape share their code, whatever their weights.
pub struct Compiled {
    threads: usize,
    libraries: Mutex<Libraries>,
}

/// The library of each set of kernels, in a folder that is made for the first and removed with this.
#[derive(Default)]
struct Libraries {
    dir: Option<TempDir>,
    paths: BTreeMap<String, PathBuf>,
}

fn failed(error: &dyn std::error::Error) -> RunError {
    let causes = std::iter::successors(error.source(), |e| e.source()).map(|e| format!(": {e}"));
    RunError(format!("{error}{}", causes.collect::<String>()))
}

impl Compiled {
    /// Nothing is made before the first graph.
    pub fn new(threads: usize) -> Self {
        Compiled { threads, libraries: Mutex::default() }
    }

    fn library(&self, plan: &Plan) -> Result<PathBuf, RunError> {
        let kernels: BTreeMap<&str, _> =
            plan.launches.iter().map(|l| (&*l.symbol, plan.signature(l))).collect();
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{kernels:?}");
        if let Some(path) = libraries.paths.get(&key) {
            return Ok(path.clone());
        }
        let dir = match libraries.dir.take() {
            Some(dir) => dir,
            None => tempfile::Builder::new().prefix("fireq-").tempdir().map_err(|e| failed(&e))?,
        };
        let path = dir.path().join(format!("{}.so", libraries.paths.len()));
        libraries.dir = Some(dir);
        compile(plan, Cpu::Host, &path).map_err(|e| failed(&e))?;
        libraries.paths.insert(key, path.clone());
        Ok(path)
    }
}

impl Runner for Compiled {
    fn prepare<'a>(&self, graph: &'a Graph, most: usize) -> Result<Prepared<'a>, RunError> {
        let lowered = lower(graph).map_err(|e| failed(&e))?;
        let library = self.library(&lowered.plan)?;
        let limits = Limits { tokens: most, context: most, threads: self.threads };
        let weights = weights(graph, &lowered).map_err(|e| failed(&e))?;
        let mut executor = Executor::new(lowered.plan, weights, &library, limits).map_err(|e| failed(&e))?;
        Ok(Box::new(move |inputs| run(graph, &mut executor, inputs).map_err(|e| failed(&e))))
    }
}

/// One sequence, from empty caches.
fn run(
    graph: &Graph,
    executor: &mut Executor,
    inputs: &Tensors,
) -> Result<Vec<Tensor>, fireq_runtime::RuntimeError> {
    for value in graph.inputs() {
        let Some((name, tensor)) =
            graph.op(*value).name().and_then(|name| Some((name, inputs.get(&**name)?)))
        else {
            continue;
        };
        match &tensor.data {
            Data::Int(indices) => executor.set_indices(name, indices.iter().copied())?,
            _ => executor
                .set_input(name, &tensor.to_f32().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?,
        }
    }
    let rows = tokens(graph, inputs);
    executor.run(Step { tokens: rows, past: 0, selected: rows })?;
    let output = |(n, value): (usize, &fireq_ir::ValueId)| {
        let values = executor.output(&output_name(n), rows).unwrap_or(&[]).to_vec();
        Tensor::from_rows(values, graph.ty(*value).shape.cols().fixed().unwrap_or(1))
    };
    Ok(graph.outputs.iter().enumerate().map(output).collect())
}
