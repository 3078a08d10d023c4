//! Small files of model directories: read whole, unless they are not small.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The most bytes: the tokenizers of the largest vocabularies have half of it, and an index of a million tensors, too.
pub const MOST: u64 = 64 << 20;

/// The bytes of a regular file, to which links may lead: caches of downloads consist of them.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = vec![];
    // What grows while it is read ends here, too.
    if metadata.len() > MOST || file.take(MOST + 1).read_to_end(&mut bytes)? as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {} MiB", MOST >> 20)));
    }
    Ok(bytes)
}
