//! Files that are made while they are read are files, and fail when they are told to.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::FileExt;

use xtask::served::{Mounted, Served};

#[test]
fn files_are_listed_read_anywhere_and_fail_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let files = (0..200).map(|n| Served::new(&format!("file-{n}"), vec![n as u8; n]));
    let files = files.chain([Served::new("large", bytes.clone())]).collect();
    let mounted = match Mounted::new(dir.path(), files) {
        Ok(mounted) => mounted,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!((names.len(), names.last().unwrap().to_str()), (201, Some("large")));
    assert_eq!(fs::read(dir.path().join("file-77")).unwrap(), [77; 77]);
    assert!(!dir.path().join("another").exists());
    let path = dir.path().join("large");
    let before = fs::metadata(&path).unwrap();
    assert_eq!(before.len(), bytes.len() as u64);
    let file = fs::File::open(&path).unwrap();
    let mut piece = vec![0; 1000];
    file.read_exact_at(&mut piece, 1_234_567).unwrap();
    assert!(piece == bytes[1_234_567..][..1000]);
    let large = mounted.files().last().unwrap();
    assert!((1000..2_000_000).contains(&large.bytes_read()), "{}", large.bytes_read());
    large.fail_from(4_000_000);
    assert_eq!(file.read_exact_at(&mut piece, 4_500_000).unwrap_err().raw_os_error(), Some(5));
    large.fail_from(u64::MAX);
    assert!(fs::read(&path).unwrap() == bytes);
    large.touch();
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > before.modified().unwrap());
}
