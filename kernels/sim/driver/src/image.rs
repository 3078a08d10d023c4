//! From a module's image to its PTX.

use std::ffi::{CStr, c_char};
use std::fs;
use std::path::PathBuf;

/// The variable that lists folders with pairs of `*.cubin` and `*.ptx`.
const FOLDERS: &str = "FIREQ_SIM_PTX";

const ELF: [u8; 4] = *b"\x7fELF";

/// The bytes of an image that has no size of its own: an ELF file ends where its headers say, text at its first zero.
///
/// # Safety
///
/// `image` points to either, whole.
pub unsafe fn bytes<'a>(image: *const u8) -> &'a [u8] {
    // SAFETY: text has at least its zero, and reading stops there, or an ELF header follows.
    let elf = ELF.iter().enumerate().all(|(n, byte)| unsafe { *image.add(n) } == *byte);
    if !elf {
        // SAFETY: the caller's text ends with a zero.
        return unsafe { CStr::from_ptr(image.cast::<c_char>()) }.to_bytes();
    }
    // SAFETY: an ELF header has 64 bytes.
    let header = unsafe { std::slice::from_raw_parts(image, 64) };
    // SAFETY: the file reaches to the end of its tables.
    unsafe { std::slice::from_raw_parts(image, elf_size(header)) }
}

/// Where the later of the two header tables of a 64-bit ELF file ends.
fn elf_size(header: &[u8]) -> usize {
    let number = |at: usize, bytes: usize| {
        header[at..at + bytes].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))
    };
    let table = |offset, size, count| number(offset, 8) + number(size, 2) * number(count, 2);
    table(0x20, 0x36, 0x38).max(table(0x28, 0x3a, 0x3c))
}

/// The PTX of an image: itself, or what lies beside an equal cubin.
pub fn ptx(image: &[u8]) -> Option<String> {
    if !image.starts_with(&ELF) {
        return String::from_utf8(image.to_vec()).ok();
    }
    let folders = std::env::var_os(FOLDERS)?;
    let listed: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let below = listed.iter().flat_map(entries).filter(|path| path.is_dir());
    let mut cubins = listed.iter().cloned().chain(below).flat_map(|folder| entries(&folder));
    let found = cubins.find(|path| {
        let named = path.extension().is_some_and(|extension| extension == "cubin");
        named && fs::read(path).is_ok_and(|bytes| bytes == image)
    })?;
    fs::read_to_string(found.with_extension("ptx")).ok()
}

fn entries(folder: &PathBuf) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}
