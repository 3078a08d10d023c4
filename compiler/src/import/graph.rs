//! The graph of a decoder, from its configuration and tensors. Names of constants are those of the checkpoint.

use std::collections::BTreeMap;

use fireq_ir::infer::InferError;
use fireq_ir::{ConstData, DType, Dim, Graph, Op, Shape, Type, ValueId};

use super::layout::{EMBEDDING, NORM, OUTPUT};
use super::{ImportError, ModelConfig};

/// Every tensor of a model by name: its type and its data.
pub(super) type Tensors = BTreeMap<String, (Type, ConstData)>;

/// Builds the graph; the tensors are those of the configuration's layout. `scaled` ones have unknown scales on queries and
/// keys behind rope, which smoothing can leave there.
pub(super) fn build(
    config: &ModelConfig,
    tensors: &Tensors,
    rope: DType,
    scaled: bool,
) -> Result<Graph, ImportError> {
    let graph = Graph::new(&config.name);
    let mut decoder = Decoder { graph, config, rope, scaled, tensors };
    let output = decoder.logits()?;
    decoder.graph.outputs.push(output);
    Ok(decoder.graph)
}

struct Decoder<'a> {
    graph: Graph,
    config: &'a ModelConfig,
    rope: DType,
    scaled: bool,
    tensors: &'a Tensors,
}

type Built = Result<ValueId, InferError>;

impl Decoder<'_> {
    fn logits(&mut self) -> Built {
        let [tokens, positions, select] = [("tokens", "T"), ("positions", "T"), ("select", "L")]
            .map(|(name, dim)| self.graph.input(name, Type::plain(DType::I32, Shape::vector(Dim::sym(dim)))));
        let embedding = self.constant(EMBEDDING);
        let mut x = self.graph.add(Op::Gather, &[embedding, tokens])?;
        let frequencies = self.frequencies();
        let table = self.graph.add(Op::RopeTable, &[positions, frequencies])?;
        for layer in 0..self.config.layers {
            x = self.block(layer, x, table)?;
        }
        let x = self.graph.add(Op::Gather, &[x, select])?;
        let x = self.norm(NORM, x)?;
        let output = if self.config.tied { embedding } else { self.weight(OUTPUT)? };
        self.graph.add(Op::Linear, &[x, output])
    }

    fn block(&mut self, layer: usize, x: ValueId, table: ValueId) -> Built {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed = self.norm(&name("input_layernorm.weight"), x)?;
        let attended = self.attention(layer, normed, table)?;
        let projected = self.linear(&name("self_attn.o_proj"), attended, self.config.biases.o)?;
        let x = self.graph.add(Op::Add, &[x, projected])?;
        let normed = self.norm(&name("post_attention_layernorm.weight"), x)?;
        let mlp = self.mlp(layer, normed)?;
        self.graph.add(Op::Add, &[x, mlp])
    }

    fn attention(&mut self, layer: usize, x: ValueId, table: ValueId) -> Built {
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}");
        let qkv_bias = self.config.biases.qkv;
        let mut q = self.linear(&name("q_proj"), x, qkv_bias)?;
        let mut k = self.linear(&name("k_proj"), x, qkv_bias)?;
        let v = self.linear(&name("v_proj"), x, qkv_bias)?;
        if self.config.family.qk_norm {
            q = self.norm(&name("q_norm.weight"), q)?;
            k = self.norm(&name("k_norm.weight"), k)?;
        }
        let q = self.turned(&format!("scale.q.{layer}"), q, table)?;
        let k = self.turned(&format!("scale.k.{layer}"), k, table)?;
        let k = self.append(&format!("k.{layer}"), k)?;
        let v = self.append(&format!("v.{layer}"), v)?;
        let scale = self.config.attention_scale();
        let (heads, kv_heads) = (self.config.heads, self.config.kv_heads);
        self.graph.add(Op::Attention { heads, kv_heads, scale, p: DType::F32 }, &[q, k, v])
    }

    fn turned(&mut self, scale: &str, x: ValueId, table: ValueId) -> Built {
        let turned = self.graph.add(Op::Rope, &[x, table])?;
        let Some(width) = self.graph.ty(turned).shape.cols().fixed().filter(|_| self.scaled) else {
            return Ok(turned);
        };
        let ty = Type::plain(DType::F32, Shape::vector(width));
        let scale = self.graph.constant(scale, ty, ConstData::Elided { hash: None });
        self.graph.add(Op::Scale, &[turned, scale])
    }

    fn mlp(&mut self, layer: usize, x: ValueId) -> Built {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}");
        let bias = self.config.biases.mlp;
        let gate = self.linear(&name("gate_proj"), x, bias)?;
        let up = self.linear(&name("up_proj"), x, bias)?;
        let gate = self.graph.add(Op::Silu, &[gate])?;
        let product = self.graph.add(Op::Mul, &[gate, up])?;
        self.linear(&name("down_proj"), product, bias)
    }

    fn linear(&mut self, name: &str, x: ValueId, bias: bool) -> Built {
        let weight = self.weight(&format!("{name}.weight"))?;
        let y = self.graph.add(Op::Linear, &[x, weight])?;
        if !bias {
            return Ok(y);
        }
        let bias = self.constant(&format!("{name}.bias"));
        self.graph.add(Op::Bias, &[y, bias])
    }

    fn norm(&mut self, name: &str, x: ValueId) -> Built {
        let weight = self.constant(name);
        self.graph.add(Op::RmsNorm { eps: self.config.rms_eps }, &[x, weight])
    }

    fn append(&mut self, name: &str, x: ValueId) -> Built {
        let cache = self.graph.cache(name, Type::f32(Dim::sym("P"), self.config.kv_width()));
        self.graph.add(Op::KvAppend, &[cache, x])
    }

    fn frequencies(&mut self) -> ValueId {
        let values = self.config.rope.inv_freq(self.config.head_dim, self.rope);
        let ty = Type::plain(DType::F32, Shape::vector(values.len()));
        self.graph.constant("rope.inv_freq", ty, ConstData::from_f32(&values))
    }

    /// A weight as numbers: what the checkpoint holds as codes stands for them.
    fn weight(&mut self, name: &str) -> Built {
        let constant = self.constant(name);
        let codes = self.graph.ty(constant).dtype.is_code();
        if codes { self.graph.add(Op::Dequantize, &[constant]) } else { Ok(constant) }
    }

    fn constant(&mut self, name: &str) -> ValueId {
        let (ty, data) = &self.tensors[name];
        self.graph.constant(name, ty.clone(), data.clone())
    }
}
