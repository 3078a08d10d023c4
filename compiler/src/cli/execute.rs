//! Options of what executes a model: `run`, `logits`, `bench`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Import;

/// What executes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// This machine's processors.
    Cpu,
    /// A Hopper GPU, for artifacts compiled with `--target sm_90a`.
    Cuda,
}

/// The model that a command executes.
#[derive(Debug, Args)]
pub struct Executed {
    /// An artifact, or a model directory: the unquantized reference.
    #[arg(required = true)]
    model: Option<PathBuf>,
    /// Execute a model directory with the interpreter instead of compiling it first: slow, needs no LLVM.
    #[arg(long)]
    pub interpret: bool,
    /// Where to execute.
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Device,
    /// Threads to execute with; all of the machine's by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Start every kernel of a GPU's step by itself, instead of by graphs where every sequence has one token.
    #[arg(long)]
    pub no_graphs: bool,
    /// How a model directory is read.
    #[command(flatten)]
    pub import: Import,
}

impl Executed {
    /// Where the model is; nowhere for what needs none.
    pub fn path(&self) -> &Path {
        self.model.as_deref().unwrap_or(Path::new(""))
    }

    /// Threads to execute with.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(rayon::current_num_threads).max(1)
    }
}

/// What is written of how a model ran.
#[derive(Debug, Args)]
pub struct Traced {
    /// Write when each launch ran to this file, in Chrome's trace format, which Perfetto shows.
    #[arg(long, value_name = "OUT.json")]
    pub trace: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The model.
    #[command(flatten)]
    pub model: Executed,
    /// The text to continue.
    #[arg(long, required_unless_present = "batch")]
    pub prompt: Option<String>,
    /// Continue the texts of this file instead: on each line a JSON object with a `prompt`, and with `tokens`, `temperature`,
    /// `top_p` and `seed` where they are others than the options. Prints a line of JSON for each, in their order.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["prompt", "trace"])]
    pub batch: Option<PathBuf>,
    /// Texts of a batch that a GPU continues at once.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub sequences: usize,
    /// Most tokens to generate.
    #[arg(short, long = "tokens", default_value_t = 256)]
    pub n: usize,
    /// Sample with this temperature; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Sample from the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Seed of the sampler.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What is written of how it ran.
    #[command(flatten)]
    pub traced: Traced,
}

/// Options of `logits`.
#[derive(Debug, Args)]
pub struct Logits {
    /// The model.
    #[command(flatten)]
    pub model: Executed,
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub tokens: Vec<u32>,
    /// The safetensors file to write: tensor "logits" f32[T,V].
    #[arg(short, long, required_unless_present = "compare_ops")]
    pub output: Option<PathBuf>,
    /// Instead, run the plan launch by launch, compare each with the interpreter on the operands that it had, and name the
    /// first that differs.
    #[arg(long, conflicts_with = "output")]
    pub compare_ops: bool,
}

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(mut_arg("model", |arg| arg.required(false).required_unless_present("shape")))]
pub struct Bench {
    /// The model.
    #[command(flatten)]
    pub model: Executed,
    /// Instead of a MODEL, a shape: compiled for GPUs from its configuration alone and measured there with random weights, as
    /// --batch does. A name (one that is none lists them), or a config.json.
    #[arg(long, value_name = "NAME|FILE.json", conflicts_with = "model", requires = "random_weights")]
    pub shape: Option<String>,
    /// Make the weights that MODEL has none of on the GPU, from this seed.
    #[arg(long, value_name = "SEED")]
    pub random_weights: Option<u64>,
    /// With --shape, the recipe whose operations are measured; without data it has no choices to make.
    #[arg(long, default_value = "fireq", value_name = "NAME|FILE.toml")]
    pub recipe: String,
    /// Measure steps of several sequences on a GPU: decoding so many at once, 1,16,64,128 with --shape, and prompts of
    /// --prefill-batch sequences. 0 leaves decoding out.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub batch: Option<Vec<usize>>,
    /// With --batch, tokens that each sequence has before it is decoded.
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_value = "1024,2048")]
    pub after: Vec<usize>,
    /// With --batch, sequences whose prompts are read at once; 0 leaves prompts out.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub prefill_batch: usize,
    /// With --batch, the most tokens of a step in which prompts are read.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub step_tokens: usize,
    /// With --batch, what the GPU reads at most and multiplies at most: TB/s,TFLOP/s. By default what is known of its name.
    #[arg(long, value_name = "TB/s,TFLOP/s", value_delimiter = ',', num_args = 1)]
    pub peak: Option<Vec<f64>>,
    /// Tokens of the prompt to measure; 128, with --batch 1024,2048,4096.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub prefill: Option<Vec<usize>>,
    /// Tokens to decode one by one after it.
    #[arg(long, default_value_t = 64)]
    pub decode: usize,
    /// Repetitions; the median is reported.
    #[arg(long, default_value_t = 5)]
    pub repeat: usize,
    /// Print, too, how long the launches of each kernel take, from one repetition more.
    #[arg(long)]
    pub by_kernel: bool,
    /// What is written of how that repetition ran.
    #[command(flatten)]
    pub traced: Traced,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}
