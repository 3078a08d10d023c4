//! What building needs: LLVM 19 with its libraries, and a C compiler that links.

use std::path::PathBuf;

use crate::run::{command, run, succeeds};
use crate::setup_cuda::setup_cuda;

/// Debian's packages, all that is needed beside Rust.
const PACKAGES: [&str; 8] = [
    "llvm-19-dev",
    "libpolly-19-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
    "libffi-dev",
    "gcc",
    "libc6-dev",
];

/// Installs what is missing where that is possible, and says what to install elsewhere.
pub fn setup() -> Result<(), String> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("missing: {}", missing.join(", "));
    if is_root() && succeeds(&["apt-get", "--version"]) {
        install(&PACKAGES)?;
    }
    let missing = self::missing();
    if missing.is_empty() { Ok(()) } else { Err(instructions(&missing)) }
}

/// Installs what some tests use and skip without: NVRTC, and a browser for the page of `inspect --html`.
pub fn setup_for_tests() -> Result<(), String> {
    setup()?;
    setup_cuda();
    let there =
        ["chromium", "chromium-browser", "google-chrome"].iter().any(|name| succeeds(&[name, "--version"]));
    if !there && is_root() && succeeds(&["apt-get", "--version"]) && install(&["chromium"]).is_err() {
        eprintln!("chromium could not be installed: the page is not tested in a browser");
    }
    Ok(())
}

/// What is not there, by name.
fn missing() -> Vec<&'static str> {
    let checks = [
        ("LLVM 19 development files", llvm_dir().join("include/llvm-c/Core.h").exists()),
        ("the LLVM 19 library", has_llvm_library()),
        ("a C compiler (cc)", succeeds(&["cc", "--version"])),
        ("rustfmt", succeeds(&["cargo", "fmt", "--version"])),
        ("clippy", succeeds(&["cargo", "clippy", "--version"])),
    ];
    checks.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

/// Where LLVM 19 is: what `LLVM_SYS_191_PREFIX` says, which `.cargo/config.toml` sets to Debian's place.
fn llvm_dir() -> PathBuf {
    std::env::var_os("LLVM_SYS_191_PREFIX").map_or_else(|| "/usr/lib/llvm-19".into(), PathBuf::from)
}

fn has_llvm_library() -> bool {
    let entries = std::fs::read_dir(llvm_dir().join("lib"));
    entries.is_ok_and(|entries| {
        entries.flatten().any(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with("libLLVM") && (name.contains(".so") || name.contains(".dylib"))
        })
    })
}

fn is_root() -> bool {
    std::process::Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}

fn install(packages: &[&str]) -> Result<(), String> {
    run(command(&["apt-get", "update", "-q"]).stdout(std::process::Stdio::null()))?;
    let mut install = command(&["apt-get", "install", "-q", "-y", "--no-install-recommends"]);
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::process::Stdio::null());
    run(&mut install)
}

fn instructions(missing: &[&str]) -> String {
    format!(
        "still missing: {}\n\
         Debian, Ubuntu:  sudo apt-get install {}\n\
         Fedora:          sudo dnf install llvm19-devel zlib-devel libzstd-devel libxml2-devel libffi-devel gcc\n\
         macOS:           brew install llvm@19 zstd libxml2 libffi\n\
         Rust parts:      rustup component add rustfmt clippy\n\
         LLVM elsewhere than /usr/lib/llvm-19: set LLVM_SYS_191_PREFIX to its prefix",
        missing.join(", "),
        PACKAGES.join(" "),
    )
}
