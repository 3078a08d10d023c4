//! Wider heads, whose slowest rope pairs are doubled so that biases of keys cancel: see [`super::Kind::KeyBias`].

use std::f64::consts::TAU;

use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoint;
use super::config::Config;
use super::edit::{Axis, Edit, Edits};
use super::place::{block, edit};

/// The widest head that the cache has one scale for.
const WIDEST: usize = 128;
/// Pairs that are doubled: with their doubles, 32 channels, the run of codes that kernels decode at once.
const DOUBLED: usize = 16;
/// Doubled pairs that get a bias, the slowest.
const BIASED: usize = 8;
/// What a channel reaches over some hundred tokens, in standard deviations.
const REACH: f64 = 3.0;

/// Why a model cannot have biases that cancel.
pub fn check(config: &Config) -> Result<(), String> {
    if !["llama", "qwen2"].contains(&config.family.as_str()) {
        return Err(format!("keys of {} cannot have a bias in one channel", config.family));
    }
    if config.rope_type != "default" {
        return Err(format!("rope of type `{}` has no room for doubled pairs", config.rope_type));
    }
    let wide = config.head_dim + 2 * doubled(config);
    if wide > WIDEST {
        return Err(format!("heads would have {wide} channels, the KV cache has one scale for {WIDEST}"));
    }
    Ok(())
}

fn doubled(config: &Config) -> usize {
    DOUBLED.min(config.head_dim / 2)
}

/// Makes heads wider and adds biases of `factor` times what a channel of K typically reaches.
pub fn widen(
    config: &mut Config,
    checkpoint: &Checkpoint,
    factor: f32,
    edits: &mut Edits,
) -> Result<(), String> {
    let Config { heads, kv_heads, head_dim, .. } = *config;
    let [query, key, value] = channels(head_dim, doubled(config));
    for layer in 0..config.layers {
        let modules = [("q", &query, heads), ("k", &key, kv_heads), ("v", &value, kv_heads)];
        for (name, head, count) in modules {
            let axis = head.per_head(count, head_dim);
            let module = format!("self_attn.{name}_proj");
            let weight = edit(edits, config, checkpoint, layer, &format!("{module}.weight"))?;
            weight.rows = weight.rows.take(&axis);
            let added = bias(edits, config, checkpoint, layer, &module)?;
            added.rows = added.rows.take(&axis);
        }
        let output = edit(edits, config, checkpoint, layer, "self_attn.o_proj.weight")?;
        output.columns = output.columns.as_ref().map(|axis| axis.take(&value.per_head(heads, head_dim)));
        if config.family == "llama" {
            bias(edits, config, checkpoint, layer, "self_attn.o_proj")?;
        }
        add_biases(config, checkpoint, layer, factor, edits)?;
    }
    let (theta, scaling) = rope(config);
    config.set_heads(head_dim + 2 * doubled(config), theta, scaling);
    Ok(())
}

/// Where channels of a wider head come from, for q, k and v. Pairs are channels `i` and `i + dim/2`; the doubles of the
/// last `doubled` pairs follow them.
fn channels(dim: usize, doubled: usize) -> [Axis; 3] {
    let (old, new) = (dim / 2, dim / 2 + doubled);
    let pair = |channel: usize| if channel % new < old { channel % new } else { channel % new - doubled };
    let origin = |channel: usize| pair(channel) + channel / new * old;
    // Attention divides by the root of the head's size.
    let root = (new as f32 / old as f32).sqrt();
    let half = |channel: usize| if pair(channel) >= old - doubled { 0.5 } else { 1.0 };
    let query = (0..2 * new).map(|c| Some((origin(c), root * half(c))));
    let key = (0..2 * new).map(|c| Some((origin(c), 1.0)));
    let value = (0..2 * new).map(|c| (c < dim).then_some((c, 1.0)));
    [Axis(query.collect()), Axis(key.collect()), Axis(value.collect())]
}

/// The edit of a module's bias; one that the original does not have is zeros.
fn bias<'e>(
    edits: &'e mut Edits,
    config: &Config,
    checkpoint: &Checkpoint,
    layer: usize,
    module: &str,
) -> Result<&'e mut Edit, String> {
    let part = format!("{module}.bias");
    let name = block(layer, &part);
    if !checkpoint.has(&name) {
        return Ok(edits.entry(name).or_insert_with(|| Edit::zeros(config.shape(&part)[0])));
    }
    edit(edits, config, checkpoint, layer, &part)
}

fn add_biases(
    config: &Config,
    checkpoint: &Checkpoint,
    layer: usize,
    factor: f32,
    edits: &mut Edits,
) -> Result<(), String> {
    let (old, doubled) = (config.head_dim / 2, doubled(config));
    let wide = 2 * (old + doubled);
    let deviations = deviations(config, checkpoint, layer)?;
    let bias = bias(edits, config, checkpoint, layer, "self_attn.k_proj")?;
    for (head, deviations) in deviations.chunks(config.head_dim).enumerate() {
        let reach = f64::from(factor) * REACH * median(deviations);
        for pair in old - BIASED.min(doubled)..old {
            bias.added.insert(head * wide + pair, reach as f32);
            bias.added.insert(head * wide + pair + doubled, -reach as f32);
        }
    }
    Ok(())
}

/// The standard deviation of each channel of K, were the channels of what the norm gives independent.
fn deviations(config: &Config, checkpoint: &Checkpoint, layer: usize) -> Result<Vec<f64>, String> {
    let norm = checkpoint.rows(&block(layer, "input_layernorm.weight"))?;
    let rows = checkpoint.rows(&block(layer, "self_attn.k_proj.weight"))?;
    let gamma: Vec<f32> = (0..config.hidden).flat_map(&norm).collect();
    let square = |(w, g): (&f32, &f32)| (f64::from(*w) * f64::from(*g)).powi(2);
    let deviation = |row: Vec<f32>| row.iter().zip(&gamma).map(square).sum::<f64>().sqrt();
    Ok((0..config.kv_heads * config.head_dim).map(|row| deviation(rows(row))).collect())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Base and scaling under which the first pairs of a wider head have the frequencies of all pairs now, and the
/// others those of the last once more.
fn rope(config: &Config) -> (f64, Map<String, Value>) {
    let (old, doubled) = ((config.head_dim / 2) as f64, doubled(config) as f64);
    let theta = config.theta;
    // Half a step beyond the longest wavelength; without a range between it and the shortest that is scaled.
    let limit = TAU * theta.powf((old - 0.5) / old);
    let low = config.context as f64 / limit;
    let scaling = json!({
        "factor": theta.powf(-doubled / old),
        "original_max_position_embeddings": config.context,
        "low_freq_factor": low,
        "high_freq_factor": low * 1.0001,
    });
    (theta.powf((old + doubled) / old), scaling.as_object().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_head_holds_the_old_one_and_its_last_pairs_twice() {
        let [query, key, value] = channels(8, 2);
        let from = |axis: &Axis| axis.0.iter().map(|c| c.map(|(c, _)| c)).collect::<Vec<_>>();
        let whole = [0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 6, 7].map(Some);
        assert_eq!((from(&key), from(&query)), (whole.to_vec(), whole.to_vec()));
        assert_eq!(from(&value)[..8], [0, 1, 2, 3, 4, 5, 6, 7].map(Some));
        assert_eq!(from(&value)[8..], [None; 4]);
        let weights = query.0.iter().flatten().map(|(c, times)| (c % 4, f64::from(times / 1.5f32.sqrt())));
        let mut sums = [0.0; 4];
        weights.for_each(|(pair, weight)| sums[pair] += weight);
        assert_eq!(sums, [2.0; 4], "each channel of a pair counts once in all");
    }
}
