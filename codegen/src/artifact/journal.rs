//! Which weights of an artifact under construction are done: lines that are only ever added to a file.
//!
//! A line is a checksum, a space and JSON. It is written when the bytes that it tells of are, in the order of system calls:
//! a process that is killed leaves both or neither, and at most one torn line at the end, which is left out and cut off. A
//! machine that loses power may keep a line and lose bytes. So lines have hashes of the bytes, which whoever resumes
//! compares before they become part of an artifact.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{ArtifactError, at};

/// The journal of an artifact, and what it said when it was opened.
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    /// For each file of weights and weight what is known of it.
    pub packed: BTreeMap<(String, String), Packed>,
    /// BLAKE3 of the manifest, where the artifact was whole and about to be published.
    pub finished: Option<String>,
}

/// A weight that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packed {
    /// BLAKE3 of each of its parts, in their order.
    pub parts: Vec<String>,
    /// Hashes of the constants that it was made of, by name, which the text of the graph has.
    pub constants: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Line {
    Packed { file: String, weight: String, packed: Packed },
    Finished(String),
}

impl Journal {
    /// Opens the journal `path`, a new one if there is none.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let open = || {
            let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
            let (lines, whole) = read(&fs::read(path)?);
            file.set_len(whole as u64)?;
            Ok((file, lines))
        };
        let (file, lines) = open().map_err(at(path))?;
        let (mut packed, mut finished) = (BTreeMap::new(), None);
        for line in lines {
            match line {
                Line::Packed { file, weight, packed: found } => drop(packed.insert((file, weight), found)),
                Line::Finished(hash) => finished = Some(hash),
            }
        }
        Ok(Journal { path: path.to_path_buf(), file: Mutex::new(file), packed, finished })
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> Result<(), ArtifactError> {
        (self.packed, self.finished) = (BTreeMap::new(), None);
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        file.set_len(0).map_err(at(&self.path))
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() == 0)
    }

    /// Says that a weight is written.
    pub fn packed(&self, file: &str, weight: &str, packed: Packed) -> Result<(), ArtifactError> {
        self.add(&Line::Packed { file: file.into(), weight: weight.into(), packed })
    }

    /// Says that everything is written, with the hash of the manifest.
    pub fn finish(&self, manifest: String) -> Result<(), ArtifactError> {
        self.add(&Line::Finished(manifest))
    }

    fn add(&self, line: &Line) -> Result<(), ArtifactError> {
        let json = serde_json::to_string(line).expect("strings have a JSON form");
        let text = format!("{} {json}\n", checksum(json.as_bytes()));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(&mut file, text.as_bytes()).map_err(at(&self.path))
    }
}

/// Writes a line, or leaves the file as it was: lines behind a torn one would be lost.
fn write_line(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(line).inspect_err(|_| drop(file.set_len(before)))
}

/// Lines up to the first that is not whole, and where it begins.
fn read(bytes: &[u8]) -> (Vec<Line>, usize) {
    let (mut lines, mut whole) = (vec![], 0);
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let Some(found) = parse(line) else { break };
        lines.push(found);
        whole += line.len();
    }
    (lines, whole)
}

fn parse(line: &[u8]) -> Option<Line> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM)?;
    let json = json.strip_prefix(b" ")?;
    if checksum(json).as_bytes() == sum { serde_json::from_slice(json).ok() } else { None }
}

/// Hexadecimal digits of a checksum.
const CHECKSUM: usize = 16;

fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..CHECKSUM].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(n: usize) -> Packed {
        let constants = [(format!("w{n}"), "00".repeat(8))].into();
        Packed { parts: vec![format!("{n:064x}"); n], constants }
    }

    /// The bytes of a journal of three weights.
    fn written(path: &Path) -> Vec<u8> {
        let journal = Journal::open(path).unwrap();
        (0..3).for_each(|n| journal.packed("f", &format!("w{n}"), packed(n)).unwrap());
        fs::read(path).unwrap()
    }

    #[test]
    fn whatever_is_cut_off_whole_lines_are_read_and_others_can_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let bytes = written(&path);
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let journal = Journal::open(&path).unwrap();
            let whole = bytes[..cut].split(|b| *b == b'\n').count() - 1;
            let expected: BTreeMap<_, _> =
                (0..whole).map(|n| (("f".into(), format!("w{n}")), packed(n))).collect();
            assert_eq!(journal.packed, expected, "{cut}");
            journal.finish("hash".into()).unwrap();
            let again = Journal::open(&path).unwrap();
            assert_eq!((again.packed, again.finished), (expected, Some("hash".into())), "{cut}");
        }
    }

    #[test]
    fn a_changed_line_ends_what_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let bytes = written(&path);
        let line = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let known = Journal::open(&path).unwrap().packed.len();
            assert!(known < 3 && (known > 0) == (at >= line), "{at}: {known}");
        }
    }
}
