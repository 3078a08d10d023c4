//! Import of Hugging Face model directories: `config.json` and safetensors files become a graph.
//!
//! Weights are mapped, never read: importing a checkpoint costs the same whatever its size, and whoever consumes a
//! constant checks its numbers ([`fireq_ir::ConstData::first_non_finite`]).

mod checkpoint;
mod config;
mod error;
mod families;
mod graph;
mod keys;
mod layout;
mod listed;
mod packed;
mod rope;
mod rope_keys;

use std::path::{Path, PathBuf};

use fireq_ir::{ConstData, DType, Dim, Graph, Shape, Type};
use safetensors::Dtype;

pub(crate) use checkpoint::stored;
pub use checkpoint::{Checkpoint, StoredTensor};
pub use config::{Biases, ModelConfig};
pub use error::ImportError;
pub use families::{FAMILIES, Family};
pub(crate) use layout::{EMBEDDING, OUTPUT, block_linears};
pub use layout::{layout, stored_layout};
pub use listed::{Weights, import_listed};
pub use packed::{Packed, Packing};
pub use rope::{Rope, RopeScaling};

/// A model as imported: its graph with mapped weights, and the numbers its configuration gave.
#[derive(Debug)]
pub struct Model {
    /// Inputs `tokens`, `positions`, `select`; caches `k.<layer>`, `v.<layer>`; one output, logits `f32[L,V]`.
    pub graph: Graph,
    /// Sizes and switches.
    pub config: ModelConfig,
    /// Where it came from.
    pub dir: PathBuf,
    /// True where only shapes of the weights are known.
    pub weightless: bool,
    /// The weights that are codes already.
    pub packed: Option<Packed>,
}

/// What a configuration does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// The dtype that rope frequencies are rounded to. Transformers keeps them in f32 when it loads a checkpoint; a
    /// model that was cast as a whole (`model.to(torch.bfloat16)`) computes with rounded ones.
    pub rope: DType,
    /// Most tokens that a sequence will have; without it as many as the model was trained for. It is what caches have positions for,
    /// and chooses among the frequencies of rope types that have several ([`RopeScaling`]).
    pub context: Option<usize>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions { rope: DType::F32, context: None }
    }
}

/// Imports the model in `dir`, of one of the [`FAMILIES`], as transformers loads it.
pub fn import(dir: &Path) -> Result<Model, ImportError> {
    import_with(dir, ImportOptions::default())
}

/// Imports a model with choices that its configuration does not record.
pub fn import_with(dir: &Path, options: ImportOptions) -> Result<Model, ImportError> {
    let config = ModelConfig::read_for(dir, options.context)?;
    let mut checkpoint = Checkpoint::open(dir)?;
    let (mut weights, packed) = packed::take(&config, &mut checkpoint)?;
    layout::check(&config, &checkpoint, &weights)?;
    layout::split(&config, &mut checkpoint, &mut weights);
    let tensors = checkpoint.tensors.iter().map(|(name, stored)| {
        (name.clone(), (Type::plain(dtype(stored.dtype), shape(&stored.shape)), stored.data()))
    });
    weights.extend(tensors);
    let graph = graph::build(&config, &weights, options.rope, false)?;
    Ok(Model { graph, config, dir: dir.into(), weightless: false, packed })
}

/// The graph that the configuration in `dir` describes, with bf16 weights whose data is left out: shapes, without a
/// checkpoint.
pub fn import_shape(dir: &Path, options: ImportOptions) -> Result<Model, ImportError> {
    shape_of(ModelConfig::read_for(dir, options.context)?, dir, options, DType::BF16, false)
}

/// As [`import_shape`], of a configuration's text, which was read from `path` or goes by that name. Queries and keys that are
/// `scaled` have scales of unknown numbers behind rope, as smoothing leaves them.
pub fn import_config(
    path: &Path,
    text: &[u8],
    options: ImportOptions,
    scaled: bool,
) -> Result<Model, ImportError> {
    let dir = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    shape_of(ModelConfig::parse(path, text, options.context)?, dir, options, DType::BF16, scaled)
}

/// The graph that a configuration describes, as [`import_shape`] has it.
pub(crate) fn without_data(config: &ModelConfig) -> Result<Graph, ImportError> {
    Ok(shape_of(config.clone(), Path::new(""), ImportOptions::default(), DType::BF16, false)?.graph)
}

/// The graph of a configuration, with weights of this dtype whose data is left out.
pub(crate) fn shape_of(
    config: ModelConfig,
    dir: &Path,
    options: ImportOptions,
    weights: DType,
    scaled: bool,
) -> Result<Model, ImportError> {
    let elided = |(name, dims): (String, Vec<usize>)| {
        (name, (Type::plain(weights, shape(&dims)), ConstData::Elided { hash: None }))
    };
    let tensors = layout(&config).into_iter().map(elided).collect();
    let graph = graph::build(&config, &tensors, options.rope, scaled)?;
    Ok(Model { graph, config, dir: dir.into(), weightless: true, packed: None })
}

fn shape(dims: &[usize]) -> Shape {
    Shape(dims.iter().map(|n| Dim::Fixed(*n)).collect())
}

fn dtype(stored: Dtype) -> DType {
    match stored {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        _ => DType::F32,
    }
}
