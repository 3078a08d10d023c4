//! Options of `fireq export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fireq::export::Format;
use fireq_ir::DType;

use super::Import;

/// Options of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// An artifact, or a model directory, which is quantized first.
    pub model: PathBuf,
    /// What to write: INT4 weights as compressed-tensors has them, for vLLM, or the numbers that fireq's kernels decode, for
    /// anything that reads checkpoints.
    #[arg(long, value_enum)]
    pub format: Written,
    /// The checkpoint directory to write.
    #[arg(short, long)]
    pub output: PathBuf,
    /// How to quantize a model directory: rtn (the default), fireq, paper, none, another named pipeline, or a file FILE.toml. What
    /// no checkpoint can hold is left out: scales behind rope, and keys and values in INT4.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub recipe: Option<String>,
    /// Run this pipeline instead of the recipe's, as it is.
    #[arg(long, conflicts_with = "recipe")]
    pub passes: Option<String>,
    /// A UTF-8 text like what the model will see, to calibrate on; without it bundled stories.
    #[arg(long, value_name = "TEXT")]
    pub calib: Option<PathBuf>,
    /// Tokens to calibrate on.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub calib_tokens: usize,
    /// The dtype of scales, and of all numbers that are not packed.
    #[arg(long, value_enum, default_value_t = Number::Bf16, value_name = "DTYPE")]
    pub dtype: Number,
    /// Most bytes of weights in a file: a number, of kB, MB or GB where that is written behind it.
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    pub shard_size: u64,
    /// Threads to work with; all of the machine's by default. The checkpoint does not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print what was written as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// How the model is read.
    #[command(flatten)]
    pub import: Import,
}

/// What a checkpoint consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Written {
    /// Packed INT4 weights with scales.
    CompressedTensors,
    /// Numbers.
    SafetensorsBf16,
}

impl Written {
    /// As the library has it.
    pub fn format(self) -> Format {
        match self {
            Written::CompressedTensors => Format::CompressedTensors,
            Written::SafetensorsBf16 => Format::Dense,
        }
    }
}

/// Dtypes of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Number {
    /// BF16.
    Bf16,
    /// F32: twice the size, and nothing is rounded.
    F32,
}

impl Number {
    /// As types have it.
    pub fn dtype(self) -> DType {
        if self == Number::Bf16 { DType::BF16 } else { DType::F32 }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("", 1)];
    let parsed = units.iter().find_map(|(unit, bytes)| {
        let count: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        count.checked_mul(*bytes).filter(|bytes| *bytes > 0)
    });
    parsed.ok_or_else(|| "a size is a number such as 5GB, 500MB or 100000".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(["5GB", "20 MB", "7kB", "9"].map(size), [5_000_000_000, 20_000_000, 7000, 9].map(Ok));
        assert!(["", "GB", "-1", "0", "5 TB", "99999999999GB"].iter().all(|text| size(text).is_err()));
    }
}
