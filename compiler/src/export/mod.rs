//! Export of quantized models as Hugging Face checkpoints, for other engines.
//!
//! A checkpoint has the operations of its architecture and nothing else. So it can hold what quantization made of weights,
//! scales that were folded into weights and norms among it, and say that inputs of linears are rounded; caches in INT4,
//! queries and probabilities in E4M3 stay behind, and scales behind rope are refused.
//!
//! | file | holds |
//! |---|---|
//! | `align` | which value of a graph is which tensor of the checkpoint |
//! | `numbers` | their numbers, of a graph or of an artifact, some rows at a time |
//! | `scheme` | how each linear is quantized, by what vLLM loads |
//! | `pack`, `dense` | the numbers as the checkpoint has them, and how far they are from those of fireq's kernels |
//! | `tensors` | every tensor of the checkpoint, written |
//! | `shards`, `config`, `directory` | its files |

mod align;
mod config;
mod dense;
mod directory;
mod error;
mod numbers;
mod pack;
mod scheme;
mod shards;
mod tensors;

use std::path::{Path, PathBuf};

use fireq_codegen::artifact::{ArtifactError, Partial};
use fireq_ir::artifact::GRAPH;
use fireq_ir::fused::expand;
use fireq_ir::text::parse_graph;
use fireq_ir::{DType, Graph, Sources};
use fireq_runtime::Artifact;
use serde::Serialize;

pub use directory::{REPORT, check_output};
pub use error::ExportError;
pub use pack::Difference;

use crate::compile::kept_files;
use crate::import::{EMBEDDING, Model, ModelConfig, OUTPUT, without_data};
use align::{Aligned, align};
use error::at;
use numbers::{Numbers, Packed};
use scheme::Schemes;

/// What a checkpoint consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// INT4 weights in `pack-quantized` form, with a `quantization_config`.
    CompressedTensors,
    /// The numbers that fireq's kernels decode, for anything that reads checkpoints.
    #[serde(rename = "safetensors-bf16")]
    Dense,
}

/// How a model is exported.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// What is written.
    pub format: Format,
    /// The dtype of scales, and of all that is not packed: BF16 or F32.
    pub dtype: DType,
    /// Most bytes of a file of weights; one tensor may be more.
    pub shard: u64,
}

/// A quantized model to be exported.
pub struct Quantized {
    /// Without fused operations.
    graph: Graph,
    config: ModelConfig,
    numbers: Numbers,
    dir: PathBuf,
    /// The pipeline that made it.
    recipe: String,
}

impl Quantized {
    /// An imported model that the pipeline `recipe` quantized.
    pub fn model(model: Model, recipe: &str) -> Result<Self, ExportError> {
        let graph = expand(&model.graph)?;
        let Model { config, dir, .. } = model;
        Ok(Quantized { graph, config, numbers: Numbers::Graph, dir, recipe: recipe.into() })
    }

    /// The artifact in `dir`, for whatever machine it is.
    pub fn artifact(dir: &Path) -> Result<Self, ExportError> {
        let artifact = Artifact::describe(dir)?;
        if !artifact.manifest.files.contains_key(config::FILE) {
            return Err(ExportError::Missing { dir: dir.into(), file: config::FILE });
        }
        let path = dir.join(GRAPH);
        let text = std::fs::read_to_string(&path).map_err(at(&path))?;
        let graph = parse_graph(&text).map_err(|e| ExportError::Text { path, source: Box::new(e) })?;
        let numbers = Numbers::Packed(Packed::open(&artifact, &graph)?);
        Ok(Quantized {
            graph: expand(&graph)?,
            config: ModelConfig { name: graph.name.clone(), ..ModelConfig::read(dir)? },
            numbers,
            dir: dir.into(),
            recipe: artifact.manifest.recipe,
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }
}

/// What was exported: `fireq-export.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// The version of fireq.
    pub fireq: &'static str,
    /// The model.
    pub model: String,
    /// The pipeline that quantized it.
    pub recipe: String,
    /// What was written.
    pub format: Format,
    /// The dtype of what is not packed.
    pub dtype: String,
    /// Bytes of tensors.
    pub bytes: u64,
    /// INT4 weights with inputs in FP8, those with inputs in the dtype, and linears that are numbers.
    pub linears: Linears,
    /// Where the checkpoint is not what fireq has, and why: the weights by the reason.
    pub notes: Vec<(String, Vec<String>)>,
    /// What fireq rounds and the checkpoint does not say.
    pub left_out: Vec<&'static str>,
    /// Relative error, root mean square, of the checkpoint's quantized weights, of those that fireq's kernels decode.
    pub error: f64,
    /// The same of what vLLM's kernel for INT4 weights and FP8 inputs decodes, where any weight is for it.
    pub vllm_error: Option<f64>,
    /// Relative error of all other numbers.
    pub rounding_error: f64,
}

/// Numbers of linears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Linears {
    /// INT4 weights, inputs rounded to FP8.
    pub w4a8: usize,
    /// INT4 weights, inputs as they are.
    pub w4a16: usize,
    /// Weights that are numbers, the head among them.
    pub numbers: usize,
}

/// Writes the checkpoint that `place` is for. `progress` is told bytes of tensors done and in all. The same model gives the same bytes.
pub fn export(
    quantized: &Quantized,
    options: ExportOptions,
    place: &Partial,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Exported, ExportError> {
    let Quantized { graph, config, dir, .. } = quantized;
    let apart = ModelConfig { tied: false, ..config.clone() };
    let model = without_data(&apart)?;
    let mut aligned = align(&model, graph)?;
    if others_differ(quantized, &aligned, &model)? {
        aligned.rounded.insert("rope frequencies that are not f32");
    }
    let tied = config.tied && aligned.tensors.get(EMBEDDING) == aligned.tensors.get(OUTPUT);
    let packs = options.format == Format::CompressedTensors;
    let schemes = packs.then(|| Schemes::choose(graph, &aligned, OUTPUT, EMBEDDING));
    if schemes.as_ref().is_some_and(|schemes| schemes.packed.is_empty()) {
        return Err(ExportError::NothingQuantized);
    }
    if tied {
        aligned.tensors.remove(OUTPUT);
    }
    let (keys, sources) = (config::read(dir)?, Sources::of(graph));
    check_output(place.out())?;
    place.replace(|to| {
        let written = tensors::write(quantized, &aligned, schemes.as_ref(), options, to, progress)?;
        let text = config::text(keys, options.dtype, tied, schemes.as_ref());
        let path = to.join(config::FILE);
        std::fs::write(&path, text).map_err(at(&path))?;
        copy(dir, to)?;
        let exported = report(quantized, options, aligned, schemes, written);
        let path = to.join(REPORT);
        let text = serde_json::to_string_pretty(&exported).expect("strings and numbers have a JSON form");
        std::fs::write(&path, text + "\n").map_err(at(&path))?;
        sources.changed().map_or(Ok(exported), |path| Err(ArtifactError::Changed(path).into()))
    })
}

/// Whether constants that a configuration gives are others in the graph.
fn others_differ(quantized: &Quantized, aligned: &Aligned, model: &Graph) -> Result<bool, ExportError> {
    let Quantized { graph, numbers, .. } = quantized;
    for (name, value) in &aligned.others {
        let given = model.constants.get(name.as_str()).and_then(|data| data.numbers(graph.ty(*value).dtype));
        if given != Some(numbers.rows(graph, *value, 0..1)?.to_f32()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies the tokenizer's files and what is said of generation.
fn copy(from: &Path, to: &Path) -> Result<(), ExportError> {
    for path in kept_files(from).map_err(at(from))? {
        let name = path.file_name().filter(|name| *name != config::FILE);
        if let Some(name) = name {
            // The content only: a copy of a read-only file is the export's own file.
            let content = std::fs::read(&path).map_err(at(&path))?;
            std::fs::write(to.join(name), content).map_err(at(&to.join(name)))?;
        }
    }
    Ok(())
}

fn report(
    quantized: &Quantized,
    options: ExportOptions,
    aligned: Aligned,
    schemes: Option<Schemes>,
    written: tensors::Written,
) -> Exported {
    let mut left_out: Vec<&'static str> = aligned.rounded.into_iter().collect();
    if options.format == Format::Dense && !aligned.inputs.is_empty() {
        left_out.insert(0, "inputs of linears in E4M3");
    }
    let schemes = schemes.unwrap_or_default();
    let w4a8 = schemes.packed.values().filter(|scheme| scheme.inputs).count();
    let w4a16 = schemes.packed.len() - w4a8;
    let linears = Linears { w4a8, w4a16, numbers: schemes.ignored.len() };
    Exported {
        fireq: env!("CARGO_PKG_VERSION"),
        model: quantized.name().into(),
        recipe: quantized.recipe.clone(),
        format: options.format,
        dtype: options.dtype.to_string(),
        bytes: written.bytes,
        linears,
        notes: schemes.notes.into_iter().collect(),
        left_out,
        error: written.codes.of_exported(),
        vllm_error: (w4a8 > 0).then(|| written.codes.of_vllm()),
        rounding_error: written.numbers.of_exported(),
    }
}
