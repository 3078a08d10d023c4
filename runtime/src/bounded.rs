//! Small files, of artifacts and of models: read whole, unless they are not small.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The most bytes: far beyond the plan of any model. The tokenizers of the largest vocabularies have half of it, and an index of a
/// million tensors, too.
const MOST: u64 = 64 << 20;

/// The bytes of a regular file, to which links may lead: caches of downloads consist of them.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let (bytes, mut read) = (file.metadata()?.len(), vec![]);
    // What grows while it is read ends here, too.
    if bytes > MOST || file.take(MOST + 1).read_to_end(&mut read)? as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {} MiB", MOST >> 20)));
    }
    Ok(read)
}

/// A regular file. Opening anything else could wait for ever.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if path.metadata()?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}
