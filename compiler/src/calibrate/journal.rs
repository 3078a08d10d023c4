//! Finished blocks in a folder beside the output, so that quantizing a large model goes on after it was stopped, and takes
//! memory for one block only.
//!
//! `OUT.partial/<key>/<n>.block` is a safetensors file with the graph of block `n` as text and its new constants,
//! `<n>.streams` one with the residual stream behind it on every calibration sequence. The key stands for everything that
//! the result depends on. A file that is there is whole: it was written under another name and renamed.

use std::path::{Path, PathBuf};
use std::{fs, io};

use fireq_codegen::artifact::ArtifactError;
use fireq_ir::interp::Tensor;
use fireq_ir::text::{parse_and_verify, print_graph};
use fireq_ir::{DType, Sources};
use fireq_passes::{Finished, Journal, Resumed, RunError};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::build::Origin;
use crate::import::{StoredTensor, stored};
use crate::reproducer::temporary_in;

/// What a walk over blocks says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// So many blocks are done already.
    Resumed(usize),
    /// Parameters done, of how many, and which pass is at work on which block.
    Working(u64, u64, (&'a str, &'a str)),
}

/// A folder of finished blocks.
pub struct Folder {
    dir: PathBuf,
    key: String,
    sources: Sources,
    tell: Box<dyn Fn(News<'_>) + Send + Sync>,
}

impl Folder {
    /// Blocks of a model of this origin, below `dir`, which is made when the first is finished.
    pub fn new(dir: PathBuf, origin: Origin, tell: impl Fn(News<'_>) + Send + Sync + 'static) -> Self {
        Folder { dir, key: origin.key, sources: origin.sources, tell: Box::new(tell) }
    }

    /// Where the blocks of a walk are.
    fn of(&self, walk: &str) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.key.as_bytes()).update(&[0]).update(walk.as_bytes());
        self.dir.join(&hasher.finalize().to_hex()[..16])
    }
}

impl Journal for Folder {
    fn resume(&self, walk: &str) -> Resumed {
        let dir = self.of(walk);
        let mut finished: Vec<Finished> = (0..).map_while(|n| read_block(&file(&dir, n, BLOCK))).collect();
        while !finished.is_empty() {
            if let Some(streams) = read_streams(&file(&dir, finished.len() - 1, STREAMS)) {
                (self.tell)(News::Resumed(finished.len()));
                return Resumed { finished, streams };
            }
            finished.pop();
        }
        Resumed::default()
    }

    fn keep(
        &self,
        walk: &str,
        block: usize,
        finished: Finished,
        streams: &[&Tensor],
    ) -> Result<Finished, RunError> {
        if let Some(path) = self.sources.changed() {
            return Err(RunError(ArtifactError::Changed(path).to_string()));
        }
        let dir = self.of(walk);
        let path = file(&dir, block, BLOCK);
        let failed = |e: &dyn std::fmt::Display| RunError(format!("cannot write `{}`: {e}", path.display()));
        fs::create_dir_all(&dir).map_err(|e| failed(&e))?;
        write_block(&path, &finished).map_err(|e| failed(&e))?;
        write_streams(&file(&dir, block, STREAMS), streams).map_err(|e| failed(&e))?;
        if let Some(before) = block.checked_sub(1) {
            // Only the last one is needed; one more takes room and harms nothing.
            drop(fs::remove_file(file(&dir, before, STREAMS)));
        }
        read_block(&path).ok_or_else(|| failed(&"what was written does not read back"))
    }

    fn tell(&self, done: u64, all: u64, at: (&str, &str)) {
        (self.tell)(News::Working(done, all, at));
    }
}

const BLOCK: &str = "block";
const STREAMS: &str = "streams";

fn file(dir: &Path, block: usize, kind: &str) -> PathBuf {
    dir.join(format!("{block:04}.{kind}"))
}

fn write_block(path: &Path, finished: &Finished) -> io::Result<()> {
    let findings = serde_json::to_string(&finished.findings)?;
    let text = finished.graph.as_ref().map(print_graph).unwrap_or_default();
    let constants = finished.graph.iter().flat_map(|graph| &graph.constants);
    let tensors = constants.filter_map(|(name, data)| {
        let bytes = data.bytes()?;
        Some((name.to_string(), Dtype::U8, vec![bytes.len()], bytes))
    });
    let hash = hash(&text, &findings);
    write(path, tensors, [("graph", text), ("findings", findings), ("hash", hash)])
}

fn write_streams(path: &Path, streams: &[&Tensor]) -> io::Result<()> {
    let bytes = |tensor: &&Tensor| tensor.to_f32().iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes: Vec<Vec<u8>> = streams.iter().map(bytes).collect();
    let tensors = streams.iter().zip(&bytes).enumerate().map(|(n, (tensor, bytes))| {
        (format!("{n:06}"), Dtype::F32, vec![tensor.rows(), tensor.cols()], &bytes[..])
    });
    write(path, tensors, [])
}

/// A safetensors file, under a temporary name until it is whole.
fn write<'a, const N: usize>(
    path: &Path,
    tensors: impl Iterator<Item = (String, Dtype, Vec<usize>, &'a [u8])>,
    metadata: [(&str, String); N],
) -> io::Result<()> {
    let view = |(name, dtype, shape, bytes)| {
        TensorView::new(dtype, shape, bytes).map(|view| (name, view)).map_err(io::Error::other)
    };
    let tensors = tensors.map(view).collect::<io::Result<Vec<_>>>()?;
    let metadata = metadata.map(|(name, text)| (name.to_string(), text)).into();
    let temporary = temporary_in(path.parent().unwrap_or(Path::new(".")))?;
    serialize_to_file(tensors, Some(metadata), temporary.path()).map_err(io::Error::other)?;
    temporary.persist(path).map(drop).map_err(|e| e.error)
}

/// A block as [`write_block`] left it; `None` where there is none, or something else.
fn read_block(path: &Path) -> Option<Finished> {
    let file = stored(path).ok()?;
    let [text, findings, known] = ["graph", "findings", "hash"].map(|name| file.metadata.get(name));
    let (text, findings) = (text?, findings?);
    if *known? != hash(text, findings) {
        return None;
    }
    let findings = serde_json::from_str(findings).ok()?;
    if text.is_empty() {
        return Some(Finished { graph: None, findings });
    }
    let mut graph = parse_and_verify(text).ok()?;
    for (name, data) in &mut graph.constants {
        match (file.tensors.get(&**name), data.hash()) {
            (Some(stored), Some(hash)) if stored.data().hash().as_ref() == Some(&hash) => {
                *data = stored.data();
            }
            // One of the graph that the block is part of.
            (None, None) => {}
            _ => return None,
        }
    }
    Some(Finished { graph: Some(graph), findings })
}

/// What tells a damaged file: constants have hashes of their own, in the text.
fn hash(text: &str, findings: &str) -> String {
    blake3::hash(format!("{text}\0{findings}").as_bytes()).to_hex().to_string()
}

/// The streams that [`write_streams`] left.
fn read_streams(path: &Path) -> Option<Vec<Tensor>> {
    let read = |tensor: &StoredTensor| {
        let [_, cols @ (1..)] = tensor.shape[..] else { return None };
        let values = tensor.data().numbers(DType::F32).filter(|_| tensor.dtype == Dtype::F32)?;
        Some(Tensor::from_rows(values, cols))
    };
    stored(path).ok()?.tensors.values().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_matrices_of_f32() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0000.streams");
        let read = |dtype, shape: &[usize]| {
            let bytes = [0; 8];
            write(&path, [("0".into(), dtype, shape.to_vec(), &bytes[..])].into_iter(), []).unwrap();
            read_streams(&path).map(|streams| (streams[0].rows(), streams[0].cols()))
        };
        assert_eq!(read(Dtype::F32, &[2, 1]), Some((2, 1)));
        let others = [&[2][..], &[1, 2, 1], &[2, 1, 1]].map(|shape| read(Dtype::F32, shape));
        assert_eq!(others, [None; 3]);
        assert_eq!(read(Dtype::I32, &[2, 1]), None);
    }
}
