//! Commands and options of the `fireq` command line.

mod eval;
mod execute;
mod export;
mod inspect;
pub mod passes;
pub mod recipe;
mod shell;

use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fireq::import::ImportOptions;
use fireq_ir::DType;

pub use eval::Eval;
pub use execute::{Bench, Device, Executed, Logits, Run};
pub use export::Export;
pub use inspect::Inspect;
pub use shell::{Completions, Man};

/// Compiles transformer checkpoints to INT4/FP8 and runs them.
#[derive(Debug, Parser)]
#[command(name = "fireq", version, propagate_version = true, after_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str =
    "Exit status: 0 when it is done, 1 when it failed, 2 for options that do not exist or contradict.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a model directory to an artifact.
    Compile(Compile),
    /// Write a quantized model as a checkpoint for other engines.
    Export(Export),
    /// Continue a prompt, printing text as it is generated.
    Run(Run),
    /// Write the logits of given tokens to a safetensors file.
    Logits(Logits),
    /// Perplexity on a text; with --against also KL divergence, with --by-site where quantization hurts.
    Eval(Eval),
    /// Run passes on text IR: text in, text out.
    Opt(Opt),
    /// Show what a model, an artifact or a file of text IR consists of.
    Inspect(Inspect),
    /// Measure tokens per second of an artifact.
    Bench(Bench),
    /// Measure on a GPU which kernels an artifact's products are quickest with, and keep those.
    Tune(Tune),
    /// Say what of CPU, LLVM, linker and GPU is usable here, and how to get the rest.
    Doctor(Doctor),
    /// List the passes.
    Passes(Passes),
    /// Print completions for a shell.
    Completions(Completions),
    /// Print the manual, or write its pages to a folder.
    Man(Man),
}

/// Options of `compile`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Compile {
    /// A Hugging Face directory with config.json and *.safetensors.
    #[arg(required_unless_present_any = ["print_recipe", "shape"])]
    pub model: Option<PathBuf>,
    /// Instead of a MODEL, a shape, whose artifact has code for GPUs and no weights: for `fireq bench --random-weights`. A name
    /// (one that is none lists them), or a config.json.
    #[arg(long, value_name = "NAME|FILE.json", conflicts_with_all = ["model", "html"])]
    pub shape: Option<String>,
    /// The artifact directory to write.
    #[arg(short, long, required_unless_present_any = ["dry_run", "stop_after", "print_recipe"])]
    pub output: Option<PathBuf>,
    /// What to compile for: `cpu`, `sm_90a` (Hopper GPUs), or both.
    #[arg(
        long,
        default_value = "cpu",
        default_value_if("shape", ArgPredicate::IsPresent, "sm_90a"),
        value_delimiter = ','
    )]
    pub target: Vec<String>,
    /// How to quantize.
    #[command(flatten)]
    pub recipe: recipe::RecipeArgs,
    /// A UTF-8 text like what the model will see, to calibrate on; without it bundled stories.
    #[arg(long, value_name = "TEXT")]
    pub calib: Option<PathBuf>,
    /// Tokens to calibrate on.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub calib_tokens: usize,
    /// The instruction sets to compile for.
    #[arg(long, value_enum, default_value_t = CpuLevel::Host)]
    pub cpu: CpuLevel,
    /// What GPU kernels were measured to be quickest with: an artifact that `fireq tune` measured, or its tuning.json.
    #[arg(long, value_name = "FILE")]
    pub tuning: Option<PathBuf>,
    /// Only say what the artifact would hold, and what it and making it would take: time, memory, disk. Weights need not be here.
    #[arg(long)]
    pub dry_run: bool,
    /// Keep the LLVM IR in the artifact, as cpu/model.ll.
    #[arg(long)]
    pub emit_llvm: bool,
    /// Threads to compile with; all of the machine's by default. The artifact does not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Begin anew, whatever an earlier run to the same output left half done.
    #[arg(long)]
    pub fresh: bool,
    /// Print what came out as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a page that shows what a calibrated recipe did to each block.
    #[arg(long, value_name = "OUT.html", conflicts_with_all = ["stop_after", "dry_run"])]
    pub html: Option<PathBuf>,
    /// How passes run.
    #[command(flatten)]
    pub run: passes::Passes,
    /// How the model is read.
    #[command(flatten)]
    pub import: Import,
}

/// How a model directory is read.
#[derive(Clone, Copy, Debug, Args)]
pub struct Import {
    /// Round rope frequencies to this dtype, as a model does that was cast as a whole.
    #[arg(long, value_enum, default_value_t = RopeDType::F32, value_name = "DTYPE")]
    rope_dtype: RopeDType,
    /// Most tokens that a sequence will have, prompt and all; without it as many as config.json says. Fewer take less cache, and of
    /// longrope they choose the short factors.
    #[arg(long, value_name = "N")]
    context: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RopeDType {
    F32,
    F16,
    Bf16,
}

impl Import {
    /// As options of the importer.
    pub fn options(self) -> ImportOptions {
        let rope = match self.rope_dtype {
            RopeDType::F32 => DType::F32,
            RopeDType::F16 => DType::F16,
            RopeDType::Bf16 => DType::BF16,
        };
        ImportOptions { rope, context: self.context }
    }
}

/// Instruction sets to compile for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CpuLevel {
    /// Everything this machine has.
    Host,
    /// Any machine of this architecture.
    Baseline,
    /// AVX2 and FMA: x86-64 machines since 2013.
    #[value(name = "x86-64-v3")]
    X86V3,
    /// And AVX-512 F, BW, CD, DQ and VL.
    #[value(name = "x86-64-v4")]
    X86V4,
    /// And AVX-512 BF16.
    #[value(name = "x86-64-v4-bf16")]
    X86V4Bf16,
}

/// Options of `opt`.
#[derive(Debug, Args)]
pub struct Opt {
    /// A file of text IR, or - for stdin.
    pub input: PathBuf,
    /// The pipeline, such as 'a,b{opt=1}'; without it the one that the file's first line names after `// run:`.
    #[arg(long)]
    pub passes: Option<String>,
    /// How passes run.
    #[command(flatten)]
    pub run: passes::Passes,
    /// Find the first patch after which --verify-numerics fails, and print it with what is around it.
    #[arg(long, conflicts_with_all = ["stop_after", "verify_numerics"])]
    pub bisect: bool,
    /// Find the first patch after which this command fails; `{}` stands for a file with the IR.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["stop_after", "bisect"])]
    pub bisect_command: Option<String>,
}

/// Options of `tune`.
#[derive(Debug, Args)]
pub struct Tune {
    /// An artifact with code for GPUs, which gets the quickest kernels and a tuning.json.
    pub artifact: PathBuf,
    /// Tokens of a step at which kernels may change, rising, separated by commas; the last stands for more, too. By default
    /// where the cost models look.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub tokens: Option<Vec<usize>>,
    /// Kernels to try for each product and number of tokens.
    #[arg(long, default_value_t = 12, value_name = "N")]
    pub candidates: usize,
    /// Launches to time for each; the median counts.
    #[arg(long, default_value_t = 11, value_name = "N")]
    pub launches: usize,
    /// Print what was found as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print the findings as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `passes`.
#[derive(Debug, Args)]
pub struct Passes {
    /// Print the table as one JSON object.
    #[arg(long)]
    pub json: bool,
}
