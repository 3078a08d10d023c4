//! Safetensors files of a checkpoint, written tensor by tensor at places that are known before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use super::ExportError;
use super::error::at;

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    /// As safetensors calls it.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
}

impl Entry {
    /// Bytes of an element.
    fn width(&self) -> u64 {
        match self.dtype {
            "I64" => 8,
            "F32" | "I32" => 4,
            _ => 2,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product::<u64>() * self.width()
    }
}

/// The files, with their headers and without tensors.
pub(super) struct Shards {
    files: Vec<(String, File)>,
    /// For each tensor its file and where it begins there.
    places: Vec<(usize, u64)>,
}

const INDEX: &str = "model.safetensors.index.json";

impl Shards {
    /// Makes the files for `entries` in `dir`, of at most `most` bytes of tensors each, or one tensor.
    pub fn create(dir: &Path, entries: &[Entry], most: u64) -> Result<Self, ExportError> {
        let shards = split(entries, most);
        let mut made = Shards { files: vec![], places: vec![(0, 0); entries.len()] };
        for (n, shard) in shards.iter().enumerate() {
            let name = match shards.len() {
                1 => "model.safetensors".to_string(),
                all => format!("model-{:05}-of-{all:05}.safetensors", n + 1),
            };
            let (header, offsets, end) = lay_out(entries, shard);
            for (entry, offset) in shard.iter().zip(offsets) {
                made.places[*entry] = (n, offset);
            }
            let path = dir.join(&name);
            made.files.push((name, file(&path, &header, end).map_err(at(&path))?));
        }
        if shards.len() > 1 {
            let path = dir.join(INDEX);
            std::fs::write(&path, made.index(entries)).map_err(at(&path))?;
        }
        Ok(made)
    }

    /// Writes bytes of a tensor, `offset` of which come before them.
    pub fn write(&self, entry: usize, offset: u64, bytes: &[u8]) -> Result<(), ExportError> {
        let (file, start) = self.places[entry];
        let (name, file) = &self.files[file];
        file.write_all_at(bytes, start + offset).map_err(at(Path::new(name)))
    }

    /// Has everything on the disk, as far as there is one.
    pub fn sync(&self) -> Result<(), ExportError> {
        self.files.iter().try_for_each(|(name, file)| {
            let synced = file.sync_all();
            synced
                .or_else(|e| if e.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(e) })
                .map_err(at(Path::new(name)))
        })
    }

    fn index(&self, entries: &[Entry]) -> String {
        let total: u64 = entries.iter().map(Entry::bytes).sum();
        let files = entries.iter().zip(&self.places).map(|(entry, (n, _))| (&entry.name, &self.files[*n].0));
        let map: BTreeMap<_, _> = files.collect();
        format!("{:#}\n", json!({ "metadata": { "total_size": total }, "weight_map": map }))
    }
}

/// Tensors in the order of their names, as many to a file as fit.
fn split(entries: &[Entry], most: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by(|a, b| entries[*a].name.cmp(&entries[*b].name));
    let (mut shards, mut size): (Vec<Vec<usize>>, u64) = (vec![], 0);
    for entry in order {
        let bytes = entries[entry].bytes();
        match shards.last_mut().filter(|_| size.saturating_add(bytes) <= most) {
            Some(shard) => shard.push(entry),
            None => (shards.push(vec![entry]), size = 0).0,
        }
        size += bytes;
    }
    shards
}

/// The header of a file, where its tensors begin, and where the last one ends. Wide elements come first, so that each is
/// aligned to its size.
fn lay_out(entries: &[Entry], shard: &[usize]) -> (Vec<u8>, Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..shard.len()).collect();
    order.sort_by_key(|n| (u64::MAX - entries[shard[*n]].width(), &entries[shard[*n]].name));
    let mut header: BTreeMap<&str, Value> = BTreeMap::from([("__metadata__", json!({ "format": "pt" }))]);
    let (mut offsets, mut end) = (vec![0; shard.len()], 0);
    for n in order {
        let entry = &entries[shard[n]];
        offsets[n] = end;
        end += entry.bytes();
        let place = [offsets[n], end];
        header.insert(
            &entry.name,
            json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": place }),
        );
    }
    let mut json = serde_json::to_vec(&header).expect("strings and numbers have a JSON form");
    json.resize(json.len().next_multiple_of(8), b' ');
    let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
    let start = header.len() as u64;
    for offset in &mut offsets {
        *offset += start;
    }
    (header, offsets, start + end)
}

fn file(path: &Path, header: &[u8], end: u64) -> io::Result<File> {
    let file = File::create(path)?;
    file.write_all_at(header, 0)?;
    file.set_len(end)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_as_much_as_they_may_and_at_least_one_tensor() {
        let entry = |name: &str, n| Entry { name: name.into(), dtype: "F32", shape: vec![n, 25] };
        let entries = [entry("c", 1), entry("a", 1), entry("b", 9), entry("d", 1), entry("e", 1)];
        assert_eq!(split(&entries, 200), [vec![1], vec![2], vec![0, 3], vec![4]]);
        assert_eq!(split(&entries, u64::MAX).len(), 1);
        assert_eq!(split(&entries, 0).len(), 5);
    }
}
