//! Code of many plans in one library, and weights that plans share with the checkpoint.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fireq_codegen::llvm::{CompileError, Cpu, compile};
use fireq_ir::artifact::part_name;
use fireq_ir::interp::InterpError;
use fireq_ir::plan::{Launch, Lowered, Place, Plan, pack};
use fireq_ir::{ConstData, Graph, Op, ValueId};
use fireq_runtime::Weights;

/// The kernels of many plans: launches of equal kernel and types share a function, whichever plan they are in.
pub(crate) struct Kernels {
    /// The function of each signature.
    symbols: BTreeMap<String, Arc<str>>,
    /// One launch of each function, on buffers of its own.
    each: Plan,
}

impl Kernels {
    /// None yet.
    pub fn new() -> Self {
        let each =
            Plan { name: "kernels".into(), buffers: vec![], launches: vec![], arena_bytes_per_token: 0 };
        Kernels { symbols: BTreeMap::new(), each }
    }

    /// Takes note of the kernels of a plan, and gives its launches the names of the functions in the library.
    pub fn name(&mut self, plan: &mut Plan) {
        for n in 0..plan.launches.len() {
            plan.launches[n].symbol = self.symbol(plan, &plan.launches[n]);
        }
    }

    /// Compiles every kernel noted so far for this machine.
    pub fn compile(&self, library: &Path) -> Result<(), CompileError> {
        compile(&self.each, Cpu::Host, library).map(drop)
    }

    fn symbol(&mut self, plan: &Plan, launch: &Launch) -> Arc<str> {
        let signature = format!("{:?}", plan.signature(launch));
        if let Some(symbol) = self.symbols.get(&signature) {
            return symbol.clone();
        }
        let symbol: Arc<str> = format!("{}_{}", launch.kernel.mnemonic(), self.symbols.len()).into();
        let (first, inputs) = (self.each.buffers.len(), launch.inputs.len());
        let buffers = launch.inputs.iter().chain([&launch.output]).map(|b| plan.buffers[*b].clone());
        self.each.buffers.extend(buffers);
        self.each.launches.push(Launch {
            kernel: launch.kernel.clone(),
            symbol: symbol.clone(),
            inputs: (first..first + inputs).collect(),
            output: first + inputs,
        });
        self.symbols.insert(signature, symbol.clone());
        symbol
    }
}

/// The weights of a plan by the names of their parts. What the graph holds as the plan wants it is shared, not copied.
pub(crate) fn weights(graph: &Graph, lowered: &Lowered) -> Result<Weights, InterpError> {
    let mut weights = BTreeMap::new();
    for buffer in &lowered.plan.buffers {
        let Place::Weight(name) = &buffer.place else { continue };
        let value = lowered.weights[name];
        for (part, bytes) in pack(graph, value, buffer.storage)? {
            weights.insert(part_name(name, &part), data(graph, value, bytes));
        }
    }
    Ok(Weights::Memory(weights))
}

/// Alignment that kernels may count on: that of the widest number.
const ALIGN: usize = 4;

fn data(graph: &Graph, value: ValueId, bytes: Cow<'_, [u8]>) -> ConstData {
    let constant = match (graph.op(value), &bytes) {
        (Op::Const { name }, Cow::Borrowed(bytes)) if bytes.as_ptr().align_offset(ALIGN) == 0 => {
            graph.constants.get(name)
        }
        _ => None,
    };
    constant.cloned().unwrap_or_else(|| ConstData::from_bytes(bytes.into_owned()))
}
