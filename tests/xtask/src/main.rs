//! The project's own commands, run as `cargo xtask <command>`. Needs no LLVM to build: it is what installs it.

mod ablation;
mod accuracy;
mod crash_test;
mod demo;
mod fuzz;
mod gpu;
mod gpu_model;
#[cfg(target_os = "linux")]
mod large_model;
mod lean;
mod llama_cpp;
mod new_pass;
mod run;
mod setup;
mod setup_cuda;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use xtask::outliers::{self, Factors, Kind, Request};
use xtask::random_model;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building needs (Debian and Ubuntu, as root), or say what to install; fetch NVRTC for GPU code.
    Setup,
    /// Everything that CI checks: format, lints, tests, documentation.
    Test,
    /// Compile the bundled model, tell a story with it, and measure both.
    Demo,
    /// Accept what file tests print now as their snapshots.
    Bless {
        /// Only cases whose path contains this.
        filter: Option<String>,
    },
    /// Look for files that break what reads them, guided by coverage: needs cargo-fuzz.
    Fuzz {
        /// What to fuzz; without it each in turn.
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
        /// How long each target is fuzzed.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many targets run at a time.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Create a pass: its file, its row in the table, a case that fires and one that must not.
    NewPass {
        /// Its id, such as fold-norm-weights.
        name: String,
    },
    /// Write a checkpoint with random bf16 weights for a config.json.
    RandomModel {
        /// The model's config.json.
        #[arg(long)]
        config: PathBuf,
        /// The directory to write.
        #[arg(short, long)]
        output: PathBuf,
        /// Seed of the weights.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The most gibibytes of tensors in one file.
        #[arg(long, default_value_t = 4)]
        shard_gib: u64,
    },
    /// Kill compilations at random moments, and see that the next one goes on and that nothing is ever half there: minutes.
    CrashTest(crash_test::Options),
    /// Compile a checkpoint of any size that is made while it is read, and print time, memory and bytes: needs root and /dev/fuse.
    #[cfg(target_os = "linux")]
    LargeModel(large_model::Options),
    /// Write the twin of a checkpoint: the same logits, with outliers for smoothing to undo.
    Outliers(Outliers),
    /// Pack kernels, cases and binaries into a folder for a machine with a GPU.
    GpuBundle {
        /// An empty folder, or none yet.
        folder: PathBuf,
    },
    /// Write what a bundle's run.sh left into kernels/RESULTS.md.
    GpuReport {
        /// The folder that run.sh was given.
        results: PathBuf,
    },
    /// Build the binary for machines with a GPU and nothing else, and check its size, what it links and how soon it starts.
    Lean,
    /// Print what each part of recipe fireq is worth, on a model and on its twin with outliers: minutes.
    Ablation {
        /// A model directory with a tokenizer.
        #[arg(default_value = "tests/models/tinystories-3m")]
        model: PathBuf,
        /// The text to predict.
        #[arg(long, default_value = "tests/models/stories.txt")]
        text: PathBuf,
        /// Tokens per window.
        #[arg(long, default_value_t = 512)]
        ctx: usize,
        /// Predict the first N tokens of the text.
        #[arg(long, default_value_t = 131072, value_name = "N")]
        limit: usize,
    },
    /// Measure against llama.cpp on CPUs, side by side: prefill, decode and quantization of a Llama shape with random weights.
    LlamaCpp(llama_cpp::Options),
    /// Print what FP8 probabilities and INT4 keys and values cost outputs of attention, with and without scales of keys.
    AttentionAccuracy,
}

#[derive(Args)]
struct Outliers {
    /// The model: config.json and safetensors files of f32, f16 or bf16.
    model: PathBuf,
    /// The directory to write.
    #[arg(short, long)]
    output: PathBuf,
    /// Which channels get outliers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where outliers are put.
    #[arg(long, value_enum, default_value_t = Where::All)]
    kind: Where,
    /// How large they are in norms.
    #[arg(long, default_value_t = Factors::default().norms)]
    factor_norms: f32,
    /// How large they are in rows of up projections.
    #[arg(long, default_value_t = Factors::default().mlp)]
    factor_mlp: f32,
    /// How large they are in rope pairs of keys.
    #[arg(long, default_value_t = Factors::default().keys)]
    factor_keys: f32,
    /// How large they are in single channels of keys.
    #[arg(long, default_value_t = Factors::default().key_bias)]
    factor_key_bias: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Where {
    /// 4 channels of every norm of a block.
    Norms,
    /// 8 rows of every up projection.
    Mlp,
    /// 2 rope pairs of every key head.
    Keys,
    /// One channel each of slow rope pairs of every key head, which gets wider for it.
    KeyBias,
    /// All of them.
    All,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::setup().inspect(|()| setup_cuda::setup_cuda()),
        Command::Test => test::test(),
        Command::Demo => demo::demo(),
        Command::Bless { filter } => test::bless(filter),
        Command::Fuzz { target, seconds, jobs } => fuzz::fuzz(&fuzz::Request { target, seconds, jobs }),
        Command::NewPass { name } => new_pass::new_pass(&name),
        Command::RandomModel { config, output, seed, shard_gib } => {
            random_model::write(&config, &output, seed, shard_gib << 30)
        }
        Command::CrashTest(options) => crash_test::crash_test(&options),
        #[cfg(target_os = "linux")]
        Command::LargeModel(options) => large_model::large_model(&options),
        Command::GpuBundle { folder } => gpu::bundle(&folder),
        Command::GpuReport { results } => gpu::report(&results),
        Command::Lean => lean::lean(),
        Command::Outliers(options) => write_outliers(&options),
        Command::LlamaCpp(options) => llama_cpp::compare(&options),
        Command::AttentionAccuracy => accuracy::attention_accuracy(),
        Command::Ablation { model, text, ctx, limit } => {
            ablation::ablation(&ablation::Ablation { model, text, ctx, limit })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn write_outliers(options: &Outliers) -> Result<(), String> {
    let kind = match options.kind {
        Where::Norms => Kind::Norms,
        Where::Mlp => Kind::Mlp,
        Where::Keys => Kind::Keys,
        Where::KeyBias => Kind::KeyBias,
        Where::All => Kind::All,
    };
    let factors = Factors {
        norms: options.factor_norms,
        mlp: options.factor_mlp,
        keys: options.factor_keys,
        key_bias: options.factor_key_bias,
    };
    let request = Request { kind, seed: options.seed, factors };
    if let Some(left_out) = outliers::write(&options.model, &options.output, &request)? {
        eprintln!("{left_out}");
    }
    Ok(())
}
