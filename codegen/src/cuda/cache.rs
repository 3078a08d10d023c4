//! Compiled units by content: what was compiled once, in whatever model, is not compiled again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::nvrtc::{ARCHITECTURE, Compiled, FLAGS, NvrtcFailure, ROOT, compile, version};

/// A folder of compiled units, one folder for each key.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: Option<PathBuf>,
}

impl Cache {
    /// The cache in `dir`, which is made when it is first written to; without one, nothing is kept.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Cache { dir }
    }

    /// The user's cache.
    pub fn of_user() -> Self {
        Cache::new(super::toolkit::cache_dir().map(|dir| dir.join("kernels")))
    }

    /// The compiled unit, from the cache where it is there. A cache that cannot be written is no error.
    pub fn compile(&self, name: &str, text: &str) -> Result<Compiled, NvrtcFailure> {
        let Some(dir) = &self.dir else { return compile(name, text) };
        let entry = dir.join(key(name, text)?);
        if let Ok(found) = read(&entry) {
            return Ok(found);
        }
        let compiled = compile(name, text)?;
        let _ = install(&entry, &compiled);
        Ok(compiled)
    }
}

/// What decides about the result: text, flags with the architecture in them, names of files, and NVRTC's version.
fn key(name: &str, text: &str) -> Result<String, NvrtcFailure> {
    let (major, minor) = version()?;
    let mut hasher = blake3::Hasher::new();
    let version = format!("{major}.{minor}");
    for part in [name, text, &FLAGS.join(" "), ARCHITECTURE, ROOT, &version] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

const PTX: &str = "unit.ptx";
const CUBIN: &str = "unit.cubin";

fn read(entry: &Path) -> io::Result<Compiled> {
    Ok(Compiled { ptx: fs::read_to_string(entry.join(PTX))?, cubin: fs::read(entry.join(CUBIN))? })
}

/// Writes an entry aside and renames it, so that it is there whole or not at all. One that could not be read is removed
/// first; of several writers, whoever renames first wins.
fn install(entry: &Path, compiled: &Compiled) -> io::Result<()> {
    let dir = entry.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let aside = tempfile::Builder::new().prefix(".new-").tempdir_in(dir)?;
    fs::write(aside.path().join(PTX), &compiled.ptx)?;
    fs::write(aside.path().join(CUBIN), &compiled.cubin)?;
    if entry.exists() && read(entry).is_err() {
        fs::remove_dir_all(entry)?;
    }
    fs::rename(aside.path(), entry)
}
