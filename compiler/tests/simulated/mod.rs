//! A driver whose GPU is the simulator, for programs that a test starts.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fireq_codegen::cuda::nvrtc::version;

/// A folder in which the simulated driver goes by the name of the real one; none, which is said, where nothing can be compiled
/// for it.
pub fn driver(within: &Path, what: &str) -> Option<PathBuf> {
    if version().is_err() {
        eprintln!("skipped: {what}: no NVRTC (cargo xtask setup)");
        return None;
    }
    let folder = within.join("driver");
    fs::create_dir(&folder).unwrap();
    let library = std::env::current_exe().unwrap().with_file_name("libsimcuda.so");
    std::os::unix::fs::symlink(library, folder.join("libcuda.so")).unwrap();
    Some(folder)
}

/// Lets a program find the driver, whose modules are those of this folder.
pub fn on<'a>(command: &'a mut Command, driver: &Path, kernels: &Path) -> &'a mut Command {
    command.env("LD_LIBRARY_PATH", driver).env("FIREQ_SIM_PTX", kernels)
}

/// What a program printed, which succeeds.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a program said, which fails.
#[track_caller]
pub fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}
