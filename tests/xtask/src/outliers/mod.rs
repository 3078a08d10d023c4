//! The twin of a checkpoint: the same function of its tokens, with outliers where large models have them, so that
//! smoothing can be judged on a small one.
//!
//! Every outlier is undone in a neighbouring weight, so the unquantized logits are those of the original but for the
//! rounding of f32. [`Kind`] says what is done and why it is an identity.

mod checkpoint;
mod config;
mod edit;
mod place;
mod widen;

use std::fs;
use std::path::Path;

use checkpoint::Checkpoint;
use config::Config;
use edit::Edits;
use place::Place;

/// Where outliers are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 4 channels of each norm before attention and before the MLP, undone in the columns of the linears that read it.
    Norms,
    /// 8 rows of `up_proj` and its bias, undone in the columns of `down_proj`.
    Mlp,
    /// Both channels of 2 rope pairs of each key head, undone in its query heads. A scale that a pair shares commutes
    /// with the rotation. Where keys are normalized (Qwen3), the norms' weights are scaled: one vector for all heads.
    Keys,
    /// One channel of 16 rope pairs of each key head, and not the other: what no scale shared by a pair can undo.
    ///
    /// At a given head size nothing gives this. Frequencies differ from pair to pair, so a pair's part of a logit,
    /// `Re(q̄·k·e^{iωδ})`, must stay as it is for each pair on its own; this leaves `k·c` and `q/c̄` with one complex number
    /// `c`: a scale and a rotation that the pair shares. So heads are made wider: the slowest pairs get a double that
    /// turns with the same frequency ω and reads the same rows of k, and q is halved in both. Then `k + b` in one and
    /// `k − b` in the other leave `q̄/2·(k + b) + q̄/2·(k − b) = q̄·k` for every `b`, whatever ω. A slow pair turns
    /// little in some hundred tokens, so a constant `b` stays in one channel after rope too (up to 15 degrees after 256
    /// in heads of 64 with a base of 10000). The other channel carries what logits need, which a scale shared by the pair would lose.
    ///
    /// The wider head's frequencies are Llama's: `theta` is raised so that the old pairs keep theirs, and the rope type
    /// `llama3`, which divides the frequencies of long wavelengths by a factor, gets one below 1 that takes the new
    /// pairs to those they double. `b` is a bias of `k_proj`. So the kind is for plain rope, heads of at most 96
    /// channels (the cache has one scale for 128 at most), linears that may have biases (Llama, Qwen2) and keys that are not
    /// normalized after them.
    KeyBias,
    /// All of these; `KeyBias` only where it can be done.
    All,
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Where outliers are put.
    pub kind: Kind,
    /// Which channels get them. The same seed gives the same bytes.
    pub seed: u64,
    /// How large they are.
    pub factors: Factors,
}

/// How large outliers are, for each kind: a positive number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Times the norm's weight.
    pub norms: f32,
    /// Times the rows of `up_proj`.
    pub mlp: f32,
    /// Times the pairs of K.
    pub keys: f32,
    /// Times what a channel of K typically reaches, see [`Kind::KeyBias`].
    pub key_bias: f32,
}

impl Default for Factors {
    fn default() -> Self {
        Factors { norms: 40.0, mlp: 40.0, keys: 20.0, key_bias: 20.0 }
    }
}

/// Writes the twin of the checkpoint in `model` to `output`, which must not exist or be empty: f32 weights in files
/// of the same names, and the tokenizer and whatever else is no weight as it is. Streams: one row is in memory at a time.
/// Returns what [`Kind::All`] left out and why.
pub fn write(model: &Path, output: &Path, request: &Request) -> Result<Option<String>, String> {
    let mut config = Config::read(model)?;
    let checkpoint = Checkpoint::open(model)?;
    let (edits, left_out) = edits(&mut config, &checkpoint, request)?;
    publish(output, |dir| {
        checkpoint.write(dir, &edits)?;
        config.write(dir)?;
        copy_others(model, dir)
    })?;
    Ok(left_out)
}

/// What changes in the tensors; the configuration changes with them.
fn edits(
    config: &mut Config,
    checkpoint: &Checkpoint,
    request: &Request,
) -> Result<(Edits, Option<String>), String> {
    let Factors { norms, mlp, keys, key_bias } = request.factors;
    if let Some(bad) = [norms, mlp, keys, key_bias].iter().find(|f| !(f.is_finite() && **f > 0.0)) {
        return Err(format!("a factor is a positive number, not {bad}"));
    }
    let wants = |kind| request.kind == kind || request.kind == Kind::All;
    let mut place = Place::new(config, checkpoint, request.seed);
    if wants(Kind::Norms) {
        place.norms(norms)?;
    }
    if wants(Kind::Mlp) {
        place.mlp(mlp)?;
    }
    if wants(Kind::Keys) {
        place.keys(keys)?;
    }
    let mut edits = place.edits;
    if !wants(Kind::KeyBias) {
        return Ok((edits, None));
    }
    match widen::check(config) {
        Ok(()) => widen::widen(config, checkpoint, key_bias, &mut edits).map(|()| (edits, None)),
        Err(reason) if request.kind == Kind::All => Ok((edits, Some(format!("no key-bias: {reason}")))),
        Err(reason) => Err(reason),
    }
}

/// Fills a directory under a temporary name and renames it.
fn publish(output: &Path, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let at = |e: std::io::Error| format!("{}: {e}", output.display());
    if output.exists() && !fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_none()) {
        return Err(format!("{}: it exists already and is no empty directory", output.display()));
    }
    let parent = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at)?;
    let temporary = tempfile::Builder::new().prefix(".outliers-").tempdir_in(parent).map_err(at)?;
    // A directory inside the private one has the permissions of any new directory.
    let filled = temporary.path().join("twin");
    fs::create_dir(&filled).map_err(at)?;
    fill(&filled)?;
    fs::rename(&filled, output).map_err(at)
}

/// Copies the files that are not the configuration and hold no weights.
fn copy_others(model: &Path, dir: &Path) -> Result<(), String> {
    let at = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    for entry in fs::read_dir(model).map_err(|e| at(model, e))? {
        let path = entry.map_err(|e| at(model, e))?.path();
        let name = path.file_name().unwrap_or_default();
        let text = name.to_string_lossy();
        let weights = [".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".gguf"];
        let other = text != config::FILE && !weights.iter().any(|end| text.ends_with(end));
        if other && path.is_file() {
            fs::copy(&path, dir.join(name)).map_err(|e| at(&path, e))?;
        }
    }
    Ok(())
}
