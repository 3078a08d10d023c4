//! The header of `weights.safetensors`: where each part of each weight lies, and how it is packed.

use std::collections::BTreeMap;

use fireq_ir::artifact::{SCHEMA, part_name, safetensors_type};
use fireq_ir::plan::{Part, Place, Storage, parts};
use serde_json::json;

use super::Build;
use super::weights::Weight;

/// Alignment of the data, and of every tensor whose size and whose predecessors' sizes allow it.
const ALIGN: usize = 64;

/// Sets the offsets of all parts and returns the header with the size of what follows it. Tensors of whole cache lines
/// come first, then those of ever smaller elements, so that every element is aligned to its own size.
pub(super) fn lay_out(weights: &mut [Weight<'_>], build: &Build<'_>) -> (Vec<u8>, u64) {
    let mut entries: Vec<Entry> = weights.iter().enumerate().flat_map(|(n, w)| entries(n, w)).collect();
    let class = |e: &Entry| if e.bytes.is_multiple_of(ALIGN) { 0 } else { 64 / e.part.dtype.bits().max(8) };
    entries.sort_by(|a, b| (class(a), &a.name).cmp(&(class(b), &b.name)));
    let mut header = BTreeMap::from([("__metadata__".to_string(), json!(metadata(weights, build.recipe)))]);
    let mut offset = 0;
    for entry in &entries {
        let end = offset + entry.bytes as u64;
        let value = json!({"data_offsets": [offset, end], "dtype": entry.dtype, "shape": entry.shape});
        header.insert(entry.name.clone(), value);
        weights[entry.weight].offsets[entry.index] = offset;
        offset = end;
    }
    let mut json = serde_json::to_vec(&header).expect("strings and numbers have a JSON form");
    json.resize((json.len() + 8).next_multiple_of(ALIGN) - 8, b' ');
    let length = json.len() as u64;
    ([&length.to_le_bytes()[..], &json].concat(), offset)
}

/// Which layout the file has, and for each weight of codes the type that its parts stand for.
fn metadata(weights: &[Weight<'_>], recipe: &str) -> BTreeMap<String, String> {
    let mut metadata: BTreeMap<String, String> = [
        ("format", "fireq"),
        ("version", &SCHEMA.to_string()),
        ("recipe", recipe),
        ("blocked32", BLOCKED_NOTE),
        ("interleaved", INTERLEAVED_NOTE),
        ("plain", PLAIN_NOTE),
        ("records", RECORDS_NOTE),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .into();
    for Weight { buffer, .. } in weights {
        let Place::Weight(name) = &buffer.place else { continue };
        if buffer.ty.dtype.is_code() {
            let order = if buffer.storage == Storage::Plain { "plain" } else { buffer.storage.name() };
            metadata.insert(format!("layout.{name}"), format!("{order} {}", buffer.ty));
        }
    }
    metadata
}

const BLOCKED_NOTE: &str = "blocks of 32 i4 codes in 16 bytes: byte j has code j in its low and code j+16 in its high \
     nibble; the group of every scale is padded with zeros to whole blocks; value = outer * e4m3(code * scale) under \
     e4m3 scales";

const INTERLEAVED_NOTE: &str = "blocks as of blocked32; of four rows the first four blocks each, then the next four each, \
     and so on; rows that a number of rows lacks to a multiple of four are zeros";

const PLAIN_NOTE: &str = "i4 codes two to a byte, low nibble first, row after row; value = outer * e4m3(code * scale) \
     under e4m3 scales; e4m3 codes a byte each, value = code * scale";

const RECORDS_NOTE: &str = "per 64 rows and 128 columns 4096 bytes of i4 codes in the order of wgmma's operand A, then e4m3 \
     scales of each row and group; 16 bytes for half h of the columns, warp w, lane 4g+t: words of rows 16w+g, 16w+g+8, \
     again for the next 32 columns, each with columns 4t..4t+4 and 16+4t..16+4t+4, low nibble first; scales of rows g and \
     g+8 are neighbours; value = outer * e4m3(code * scale)";

fn entries(weight: usize, w: &Weight<'_>) -> Vec<Entry> {
    let Place::Weight(name) = &w.buffer.place else { return vec![] };
    let rows = w.buffer.ty.shape.rows().fixed().unwrap_or(0);
    let vector = w.buffer.ty.shape.0.len() == 1;
    let list = parts(&w.buffer.ty, w.buffer.storage).unwrap_or_default();
    let entry = |(index, part): (usize, Part)| {
        let (dtype, shape) = safetensors_type(&part, rows, vector);
        Entry {
            weight,
            index,
            name: part_name(name, &part),
            shape,
            dtype,
            bytes: part.stored(rows).map_or(0, |(_, bytes)| bytes),
            part,
        }
    };
    list.into_iter().enumerate().map(entry).collect()
}

/// One part of one weight.
struct Entry {
    weight: usize,
    index: usize,
    name: String,
    part: Part,
    shape: Vec<usize>,
    dtype: &'static str,
    bytes: usize,
}
