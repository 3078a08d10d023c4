//! Reads the safetensors files of a checkpoint, and writes their tensors in f32 with edits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::edit::{Edit, Edits};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model directory, mapped.
pub struct Checkpoint {
    /// Files by name, in which tensors are by name.
    files: BTreeMap<String, (Mmap, BTreeMap<String, Stored>)>,
}

/// A tensor as a file holds it: floats, from `start` on.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
}

impl Checkpoint {
    /// Maps `model.safetensors`, or the shards that the index names.
    pub fn open(model: &Path) -> Result<Checkpoint, String> {
        let names =
            if model.join(SINGLE).exists() { BTreeSet::from([SINGLE.into()]) } else { shards(model)? };
        let open = |name: String| {
            let path = model.join(&name);
            let file = open_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok((name, file))
        };
        Ok(Checkpoint { files: names.into_iter().map(open).collect::<Result<_, String>>()? })
    }

    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn shape(&self, name: &str) -> Result<Vec<usize>, String> {
        let found = self.find(name).ok_or_else(|| format!("the checkpoint lacks tensor `{name}`"))?;
        Ok(found.1.shape.clone())
    }

    /// Reads a tensor a row at a time; elements of a vector are rows.
    pub fn rows(&self, name: &str) -> Result<impl Fn(usize) -> Vec<f32> + '_, String> {
        let (map, stored) = self.find(name).ok_or_else(|| format!("the checkpoint lacks tensor `{name}`"))?;
        let columns = stored.shape.get(1).copied().unwrap_or(1);
        Ok(move |row: usize| stored.read(map, row * columns, columns))
    }

    fn find(&self, name: &str) -> Option<(&Mmap, &Stored)> {
        self.files.values().find_map(|(map, tensors)| Some((map, tensors.get(name)?)))
    }

    /// Writes files of the same names into `dir`. Tensors that the original lacks stand in the first.
    pub fn write(&self, dir: &Path, edits: &Edits) -> Result<(), String> {
        let mut made: Vec<(&String, &Edit)> = edits.iter().filter(|(name, _)| !self.has(name)).collect();
        let (mut places, mut total) = (Map::new(), 0);
        for (file, (map, tensors)) in &self.files {
            let plain = tensors
                .iter()
                .map(|(name, stored)| (name, Source { map, stored: Some(stored), edit: edits.get(name) }));
            let made =
                made.drain(..).map(|(name, edit)| (name, Source { map, stored: None, edit: Some(edit) }));
            let sources: BTreeMap<&String, Source> = plain.chain(made).collect();
            let path = dir.join(file);
            total += write_file(&path, &sources).map_err(|e| format!("{}: {e}", path.display()))?;
            places.extend(sources.keys().map(|name| ((*name).clone(), json!(file))));
        }
        if self.files.contains_key(SINGLE) {
            return Ok(());
        }
        let index = json!({"metadata": {"total_size": total}, "weight_map": places});
        fs::write(dir.join(INDEX), format!("{index:#}\n")).map_err(|e| format!("{}: {e}", dir.display()))
    }
}

/// File names of the shards: plain ones, so that an index reaches nothing else.
fn shards(model: &Path) -> Result<BTreeSet<String>, String> {
    let path = model.join(INDEX);
    let text = fs::read_to_string(&path)
        .map_err(|e| format!("{}: neither {SINGLE} nor {INDEX} can be read: {e}", model.display()))?;
    let index: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let names = index["weight_map"].as_object().map(|map| map.values().filter_map(Value::as_str));
    let names: BTreeSet<String> = names.into_iter().flatten().map(String::from).collect();
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    if names.is_empty() || !names.iter().all(plain) {
        return Err(format!("{}: `weight_map` does not name the shards", path.display()));
    }
    Ok(names)
}

fn open_file(path: &Path) -> Result<(Mmap, BTreeMap<String, Stored>), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    // SAFETY: the map is read-only; a file that another process changes meanwhile changes numbers, while types and ranges
    // are checked once and kept apart from it.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| e.to_string())?;
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| e.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors().into_iter().collect::<BTreeMap<_, _>>() {
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&info.dtype) {
            return Err(format!("tensor `{name}` has dtype {}, not F32, F16 or BF16", info.dtype));
        }
        let start = size_of::<u64>() + header + info.data_offsets.0;
        tensors.insert(name, Stored { dtype: info.dtype, shape: info.shape.clone(), start });
    }
    Ok((map, tensors))
}

impl Stored {
    /// `count` elements from the one at `first` on.
    fn read(&self, map: &[u8], first: usize, count: usize) -> Vec<f32> {
        let bytes = |size: usize| map[self.start + first * size..][..count * size].chunks_exact(size);
        let half = |b: &[u8]| [b[0], b[1]];
        match self.dtype {
            Dtype::BF16 => bytes(2).map(|b| bf16::from_le_bytes(half(b)).to_f32()).collect(),
            Dtype::F16 => bytes(2).map(|b| f16::from_le_bytes(half(b)).to_f32()).collect(),
            _ => bytes(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        }
    }
}

/// Where a tensor of the twin comes from.
struct Source<'a> {
    map: &'a Mmap,
    /// None for one that the original lacks.
    stored: Option<&'a Stored>,
    edit: Option<&'a Edit>,
}

impl Source<'_> {
    fn shape(&self) -> Vec<usize> {
        let stored = || self.stored.map(|stored| stored.shape.clone()).unwrap_or_default();
        self.edit.map_or_else(stored, Edit::shape)
    }

    /// Rows of the twin, and how to get one.
    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let shape = self.stored.map(|stored| &stored.shape[..]).unwrap_or_default();
        let columns = shape.iter().skip(1).product();
        let original = |row: usize| self.stored.map_or(vec![], |s| s.read(self.map, row * columns, columns));
        let rows = self.shape().first().copied().unwrap_or(1);
        for at in 0..rows {
            let row = self.edit.map_or_else(|| original(at), |edit| edit.row(at, original));
            row.iter().try_for_each(|x| file.write_all(&x.to_le_bytes()))?;
        }
        Ok(())
    }
}

/// Writes tensors in f32; returns their bytes.
fn write_file(path: &Path, tensors: &BTreeMap<&String, Source>) -> io::Result<usize> {
    let (mut header, mut offset) = (Map::new(), 0);
    for (name, source) in tensors {
        let shape = source.shape();
        let end = offset + size_of::<f32>() * shape.iter().product::<usize>();
        header
            .insert((*name).clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    // transformers refuses files that do not say what framework their tensors are for.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut json = Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&json)?;
    tensors.values().try_for_each(|source| source.write(&mut file))?;
    file.flush()?;
    Ok(offset)
}
