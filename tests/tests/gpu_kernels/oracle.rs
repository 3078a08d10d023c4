//! What the interpreter computes for a case, and the bytes of tensors as kernels have them.

use std::collections::BTreeMap;

use fireq_ir::interp::{Data, Outcome, Tensor, eval_constant, interpret};
use fireq_ir::plan::{Storage, pack_tensor, pitch};
use fireq_ir::text::parse_and_verify;
use fireq_ir::{Graph, Op};
use fireq_tests::{Tensors, bindings, random_inputs};

/// A case with what the interpreter makes of it.
pub struct Case {
    graph: Graph,
    inputs: Tensors,
    /// Caches before the step.
    pub caches: BTreeMap<String, Tensor>,
    outcome: Outcome,
}

impl Case {
    /// Runs the body of a graph on random inputs for `tokens` tokens behind `past` others, of which `selected` are selected.
    pub fn new(body: &str, sizes: [usize; 3]) -> Self {
        Case::seeded(body, sizes, 7)
    }

    /// The same with other inputs for each seed.
    pub fn seeded(body: &str, [tokens, past, selected]: [usize; 3], seed: u64) -> Self {
        let graph = parse_and_verify(&format!("graph \"case\" {{\n{body}\n}}\n")).unwrap();
        let (inputs, caches) = random_inputs(&graph, &bindings(tokens, past, selected), seed);
        let outcome = interpret(&graph, &inputs, &caches).unwrap();
        Case { graph, inputs, caches, outcome }
    }

    /// The n-th output.
    pub fn output(&self, n: usize) -> &Tensor {
        &self.outcome.outputs[n]
    }

    /// A cache after the step.
    pub fn cache(&self, name: &str) -> &Tensor {
        &self.outcome.caches[name]
    }

    /// The bytes of an input: its numbers or its codes.
    pub fn input(&self, name: &str) -> Vec<u8> {
        self.input_parts(name).remove(0)
    }

    /// The bytes of each part of an input.
    pub fn input_parts(&self, name: &str) -> Vec<Vec<u8>> {
        parts(&self.inputs[name])
    }

    /// The numbers of an input.
    pub fn input_f32(&self, name: &str) -> Vec<f32> {
        self.inputs[name].to_f32()
    }

    /// The bytes of a constant: its numbers or its codes.
    pub fn constant(&self, name: &str) -> Vec<u8> {
        parts(&self.constant_tensor(name)).remove(0)
    }

    /// A constant.
    pub fn constant_tensor(&self, name: &str) -> Tensor {
        let is = |value: &fireq_ir::ValueId| matches!(self.graph.op(*value), Op::Const { name: found } if **found == *name);
        let value = self.graph.schedule().into_iter().find(is).unwrap();
        eval_constant(&self.graph, value).unwrap()
    }
}

/// The bytes of each part of a tensor: codes and scales, or plain numbers.
pub fn parts(tensor: &Tensor) -> Vec<Vec<u8>> {
    let packed = pack_tensor(tensor, Storage::Plain).unwrap();
    packed.into_iter().map(|(_, bytes)| bytes.into_owned()).collect()
}

/// Rows or heads of `cols` E4M3 codes as far apart as kernels have them, and `between` where no column is.
pub fn pitched(codes: &[u8], cols: usize, between: u8) -> Vec<u8> {
    let row = |codes: &[u8]| [codes, &vec![between; pitch(cols) - cols]].concat();
    codes.chunks(cols).flat_map(row).collect()
}

/// The numbers of a quantized tensor before its outermost scale, as E4M3 codes: what a workspace holds.
pub fn elements_e4m3(tensor: &Tensor) -> Vec<u8> {
    let Data::Quant(_) = &tensor.data else { panic!("{} is not quantized", tensor.ty) };
    tensor.to_f32().iter().map(|x| fireq_ir::e4m3::encode(*x)).collect()
}
