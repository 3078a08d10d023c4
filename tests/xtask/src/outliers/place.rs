//! Outliers by scales that a neighbouring weight undoes.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::checkpoint::Checkpoint;
use super::config::Config;
use super::edit::{Edit, Edits};

/// Channels of a norm, rows of the up projection, and pairs of a key head that get outliers.
const NORM_CHANNELS: usize = 4;
const MLP_ROWS: usize = 8;
const KEY_PAIRS: usize = 2;

/// Collects edits of a checkpoint.
pub struct Place<'a> {
    pub edits: Edits,
    config: &'a Config,
    checkpoint: &'a Checkpoint,
    seed: u64,
}

impl<'a> Place<'a> {
    pub fn new(config: &'a Config, checkpoint: &'a Checkpoint, seed: u64) -> Self {
        Place { edits: Edits::new(), config, checkpoint, seed }
    }

    pub fn norms(&mut self, factor: f32) -> Result<(), String> {
        let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let mlp = ["mlp.gate_proj", "mlp.up_proj"];
        for layer in 0..self.config.layers {
            for (norm, readers) in
                [("input_layernorm", &attention[..]), ("post_attention_layernorm", &mlp[..])]
            {
                let channels = self.pick(layer, norm, self.config.hidden, NORM_CHANNELS);
                self.scale_rows(layer, norm, &channels, factor)?;
                for reader in readers {
                    self.scale_columns(layer, reader, &channels, 1.0 / factor)?;
                }
            }
        }
        Ok(())
    }

    pub fn mlp(&mut self, factor: f32) -> Result<(), String> {
        for layer in 0..self.config.layers {
            let rows = self.pick(layer, "mlp.up_proj", self.config.intermediate, MLP_ROWS);
            self.scale_rows(layer, "mlp.up_proj", &rows, factor)?;
            self.scale_columns(layer, "mlp.down_proj", &rows, 1.0 / factor)?;
        }
        Ok(())
    }

    pub fn keys(&mut self, factor: f32) -> Result<(), String> {
        let Config { heads, kv_heads, head_dim, .. } = *self.config;
        let shared = self.config.qk_norm();
        let (q, k) = if shared { ("q_norm", "k_norm") } else { ("q_proj", "k_proj") };
        // A norm's weight is as long as a head, and all heads have it.
        let (key_heads, group) = if shared { (1, 1) } else { (kv_heads, heads / kv_heads) };
        for layer in 0..self.config.layers {
            for head in 0..key_heads {
                let pairs = self.pick(layer, &format!("{k}.{head}"), head_dim / 2, KEY_PAIRS);
                let rows = |heads: std::ops::Range<usize>| -> Vec<usize> {
                    heads.flat_map(|h| pairs.iter().map(move |pair| h * head_dim + pair)).collect()
                };
                let both = |rows: Vec<usize>| -> Vec<usize> {
                    rows.iter().flat_map(|row| [*row, row + head_dim / 2]).collect()
                };
                self.scale_rows(layer, &format!("self_attn.{k}"), &both(rows(head..head + 1)), factor)?;
                let queries = both(rows(head * group..(head + 1) * group));
                self.scale_rows(layer, &format!("self_attn.{q}"), &queries, 1.0 / factor)?;
            }
        }
        Ok(())
    }

    /// `count` of `size` indices, by the seed and what they are for.
    fn pick(&self, layer: usize, what: &str, size: usize, count: usize) -> Vec<usize> {
        let text = format!("{layer}.{what}");
        let seed = text.bytes().fold(self.seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        rand::seq::index::sample(&mut random, size, count.min(size)).into_vec()
    }

    /// Multiplies rows of a module's weight, and of its bias where it has one.
    fn scale_rows(&mut self, layer: usize, module: &str, rows: &[usize], factor: f32) -> Result<(), String> {
        let scale = |edit: &mut Edit| rows.iter().for_each(|row| edit.rows.scale(*row, factor));
        scale(edit(&mut self.edits, self.config, self.checkpoint, layer, &format!("{module}.weight"))?);
        let bias = format!("{module}.bias");
        if self.checkpoint.has(&block(layer, &bias)) {
            scale(edit(&mut self.edits, self.config, self.checkpoint, layer, &bias)?);
        }
        Ok(())
    }

    fn scale_columns(
        &mut self,
        layer: usize,
        module: &str,
        columns: &[usize],
        factor: f32,
    ) -> Result<(), String> {
        let part = format!("{module}.weight");
        let edit = edit(&mut self.edits, self.config, self.checkpoint, layer, &part)?;
        if let Some(axis) = &mut edit.columns {
            for column in columns {
                axis.scale(*column, factor);
            }
        }
        Ok(())
    }
}

/// Name of a tensor of a block.
pub fn block(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// The edit of a tensor that the original has, in the shape that the configuration implies; so far it may be none.
pub fn edit<'e>(
    edits: &'e mut Edits,
    config: &Config,
    checkpoint: &Checkpoint,
    layer: usize,
    part: &str,
) -> Result<&'e mut Edit, String> {
    let name = block(layer, part);
    let identity = Edit::identity(config.shape(part));
    let (found, expected) = (checkpoint.shape(&name)?, identity.shape());
    if found != expected {
        return Err(format!("tensor `{name}` has shape {found:?}, config.json implies {expected:?}"));
    }
    Ok(edits.entry(name).or_insert(identity))
}
