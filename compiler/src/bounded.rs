//! Small files of model directories: read whole, unless they are not small.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The most bytes: the tokenizers of the largest vocabularies have half of it, and an index of a million tensors, too.
pub const MOST: u64 = 64 << 20;

/// The bytes of a regular file, to which links may lead: caches of downloads consist of them.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (file, bytes) = open(path)?;
    let mut read = vec![];
    // What grows while it is read ends here, too.
    if bytes > MOST || file.take(MOST + 1).read_to_end(&mut read)? as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {} MiB", MOST >> 20)));
    }
    Ok(read)
}

/// A regular file, and its size. Opening anything else could wait for ever.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    let metadata = path.metadata()?;
    if metadata.is_file() {
        Ok((File::open(path)?, metadata.len()))
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}
