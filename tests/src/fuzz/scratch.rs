//! A folder for the files of an input, in memory where the system has such folders.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// The thread's folder `name` with these files in it, and no others.
pub fn folder(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let dir = FOLDER.with(|folder| folder.get_or_init(create).path().join(name));
    // Removed rather than overwritten: an earlier input's files may still be mapped.
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir).expect("the scratch folder can be written");
    for (file, bytes) in files {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&dir)).expect("the scratch folder can be written");
        fs::write(path, bytes).expect("the scratch folder can be written");
    }
    dir
}

fn create() -> TempDir {
    let memory = Path::new("/dev/shm");
    let created = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    created.expect("there is a place for temporary files")
}
