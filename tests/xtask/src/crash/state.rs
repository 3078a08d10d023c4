//! What is on the disk when a process is gone, beside what an undisturbed one gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

const WEIGHTS: &str = "weights.safetensors";

/// Knows how the artifact ought to become, and looks how far it is.
pub(super) struct State {
    undisturbed: PathBuf,
    out: PathBuf,
    /// Its file of weights.
    bytes: Vec<u8>,
    /// Where parts of each weight are in it.
    places: BTreeMap<String, Vec<Range<usize>>>,
}

impl State {
    pub fn new(undisturbed: &Path, out: &Path) -> Result<Self, String> {
        let bytes = fs::read(undisturbed.join(WEIGHTS)).map_err(|e| e.to_string())?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
        let mut places: BTreeMap<String, Vec<Range<usize>>> = BTreeMap::new();
        for (part, info) in metadata.tensors().into_iter().collect::<BTreeMap<_, _>>() {
            let named = [".codes", ".scales", ".outer"].iter().find_map(|kind| part.strip_suffix(kind));
            let (start, end) = info.data_offsets;
            places
                .entry(named.unwrap_or(&part).into())
                .or_default()
                .push(start + 8 + header..end + 8 + header);
        }
        Ok(State { undisturbed: undisturbed.into(), out: out.into(), bytes, places })
    }

    pub fn weights(&self) -> usize {
        self.places.len()
    }

    pub fn out(&self) -> &Path {
        &self.out
    }

    pub fn partial(&self) -> PathBuf {
        self.out.with_file_name("out.partial")
    }

    /// What the output is: nothing, the artifact that was there before, or that of an undisturbed run.
    pub fn output(&self, old: Option<&Path>) -> Result<&'static str, String> {
        if !self.out.exists() {
            return old.map_or(Ok("absent"), |_| Err("the old artifact is gone".into()));
        }
        if old.map_or(Ok(false), |old| same(old, &self.out))? {
            return Ok("the old one");
        }
        if same(&self.undisturbed, &self.out)? {
            Ok("the new one")
        } else {
            Err("the output is damaged".into())
        }
    }

    /// How many weights the journal has.
    pub fn journaled(&self) -> usize {
        self.names().len()
    }

    fn names(&self) -> BTreeSet<String> {
        let text = self.of_kind("journal").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let name = |line: &str| {
            let (_, json) = line.strip_suffix('\n')?.split_once(' ')?;
            let line: serde_json::Value = serde_json::from_str(json).ok()?;
            Some(line["Packed"]["weight"].as_str()?.to_string())
        };
        text.split_inclusive('\n').filter_map(name).collect()
    }

    /// How many weights are wholly in the file of the unfinished artifact, and not in the journal.
    pub fn unjournaled(&self) -> Result<usize, String> {
        let weights = self.of_kind("artifact").map(|dir| dir.join(WEIGHTS)).filter(|path| path.exists());
        let Some(weights) = weights else { return Ok(0) };
        let (bytes, names) = (fs::read(weights).map_err(|e| e.to_string())?, self.names());
        let whole = |range: &Range<usize>| bytes.get(range.clone()) == Some(&self.bytes[range.clone()]);
        let written = self.places.iter().filter(|(_, ranges)| ranges.iter().all(whole));
        Ok(written.filter(|(name, _)| !names.contains(*name)).count())
    }

    fn of_kind(&self, kind: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(self.partial()).ok()?.flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|e| e == kind)).last()
    }
}

/// Whether two directories hold the same, bit for bit.
pub(super) fn same(a: &Path, b: &Path) -> Result<bool, String> {
    let names = |dir: &Path| -> Result<BTreeSet<_>, String> {
        let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(entries.flatten().map(|entry| entry.file_name()).collect())
    };
    let all = names(a)?;
    if all != names(b)? {
        return Ok(false);
    }
    for name in all {
        let (a, b) = (a.join(&name), b.join(&name));
        let equal =
            if a.is_dir() && b.is_dir() { same(&a, &b)? } else { fs::read(a).ok() == fs::read(b).ok() };
        if !equal {
            return Ok(false);
        }
    }
    Ok(true)
}
