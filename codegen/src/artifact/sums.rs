//! Hashes of an artifact's files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::{ArtifactError, at};

/// Bytes of a file that ought to have a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub range: Range<u64>,
    /// BLAKE3 in hexadecimal digits.
    pub hash: String,
    /// Which weight they are of.
    pub weight: usize,
}

/// BLAKE3 of every file below `dir`, by path relative to `root`; of those that are `known` it is not computed again.
pub(super) fn hashes(
    root: &Path,
    dir: &Path,
    known: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ArtifactError> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path.is_dir() {
            found.extend(hashes(root, &path, known)?);
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            let hash = known.get(&name).map_or_else(|| hash(&path), |hash| Ok(hash.clone()))?;
            found.insert(name, hash);
        }
    }
    Ok(found)
}

/// BLAKE3 of a file.
pub(super) fn hash(path: &Path) -> Result<String, ArtifactError> {
    hash_checked(path, vec![], &|_| ()).map(|(hash, _)| hash)
}

/// BLAKE3 of a file, and the weights of which a claim is wrong. Read once, in pieces rather than mapped, so that hashing needs
/// no memory of the file's size. `passed` is told how many bytes each has.
pub(super) fn hash_checked(
    path: &Path,
    mut claims: Vec<Claim>,
    passed: &dyn Fn(u64),
) -> Result<(String, Vec<usize>), ArtifactError> {
    claims.sort_by_key(|claim| (claim.range.start, claim.range.end));
    let mut checks: Vec<_> = claims.into_iter().map(|claim| (claim, blake3::Hasher::new())).collect();
    let mut file = fs::File::open(path).map_err(at(path))?;
    let (mut hasher, mut piece, mut start) = (blake3::Hasher::new(), vec![0; 4 << 20], 0u64);
    loop {
        let count = io::Read::read(&mut file, &mut piece).map_err(at(path))?;
        if count == 0 {
            break;
        }
        let bytes = &piece[..count];
        rayon::join(|| hasher.update_rayon(bytes).count(), || check(&mut checks, start, bytes));
        start += count as u64;
        passed(count as u64);
    }
    let wrong = checks.iter().filter(|(claim, hasher)| hasher.finalize().to_hex().as_str() != claim.hash);
    let mut wrong: Vec<usize> = wrong.map(|(claim, _)| claim.weight).collect();
    wrong.sort_unstable();
    wrong.dedup();
    Ok((hasher.finalize().to_hex().to_string(), wrong))
}

/// Shows the bytes from `start` on to all whose range they are part of; ranges do not overlap and are sorted.
fn check(checks: &mut [(Claim, blake3::Hasher)], start: u64, bytes: &[u8]) {
    let end = start + bytes.len() as u64;
    let first = checks.partition_point(|(claim, _)| claim.range.end <= start);
    for (claim, hasher) in checks[first..].iter_mut().take_while(|(claim, _)| claim.range.start < end) {
        let [from, to] =
            [claim.range.start.max(start), claim.range.end.min(end)].map(|at| (at - start) as usize);
        hasher.update(&bytes[from..to]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_in_its_range_and_nowhere_else() {
        let bytes: Vec<u8> = (0u32..9 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        let ends = [0, 10, 4 << 20, (4 << 20) + 1, 9 << 20];
        let claim = |(weight, range): (usize, &[usize])| Claim {
            range: range[0] as u64..range[1] as u64,
            hash: blake3::hash(&bytes[range[0]..range[1]]).to_hex().to_string(),
            weight,
        };
        let claims: Vec<Claim> = ends.windows(2).enumerate().map(claim).rev().collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = |changed: Option<usize>| {
            let mut bytes = bytes.clone();
            if let Some(at) = changed {
                bytes[at] ^= 1;
            }
            fs::write(file.path(), &bytes).unwrap();
            let (hash, wrong) = hash_checked(file.path(), claims.clone(), &|_| ()).unwrap();
            assert_eq!(hash, blake3::hash(&bytes).to_hex().as_str());
            wrong
        };
        assert_eq!(found(None), [0; 0]);
        for (at, weight) in [(0, 0), (9, 0), (10, 1), ((4 << 20) - 1, 1), (4 << 20, 2), ((9 << 20) - 1, 3)] {
            assert_eq!(found(Some(at)), [weight], "{at}");
        }
    }
}
