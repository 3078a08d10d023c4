//! llama.cpp's tools from the source in a Python package, built for this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::run;

/// The package whose source has llama.cpp's.
const PACKAGE: &str = "llama-cpp-python";

/// The folder with `llama-bench` and `llama-quantize`, which are built once.
pub fn build(folder: &Path) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(folder).map_err(io)?;
    let folder = folder.canonicalize().map_err(io)?;
    let tools = folder.join("build/bin");
    if ["llama-bench", "llama-quantize"].iter().all(|tool| tools.join(tool).exists()) {
        return Ok(tools);
    }
    let bin = folder.join("venv/bin");
    run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    let pip = || Command::new(bin.join("pip"));
    run(pip().args(["install", "-q", "scikit-build-core", "cmake", "ninja"]))?;
    let archive =
        ["download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", PACKAGE, PACKAGE, "-d"];
    run(pip().args(archive).arg(&folder))?;
    let archive = named(&folder, "llama_cpp_python-", ".tar.gz").map_err(io)?;
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder))?;
    let unpacked = named(&folder, "llama_cpp_python-", "").map_err(io)?;
    let source = unpacked.join("vendor/llama.cpp");
    let options =
        ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF"];
    let mut configure = Command::new(bin.join("cmake"));
    configure.arg("-B").arg(folder.join("build")).arg("-S").arg(source).args(["-G", "Ninja"]).args(options);
    run(configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", bin.join("ninja").display())))?;
    run(Command::new(bin.join("ninja"))
        .arg("-C")
        .arg(folder.join("build"))
        .args(["llama-bench", "llama-quantize"]))?;
    Ok(tools)
}

/// The entry of a folder whose name begins and ends so; without an end, the folder.
fn named(folder: &Path, start: &str, end: &str) -> std::io::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(start) && name.ends_with(end) && path.is_dir() == end.is_empty() {
            return Ok(path);
        }
    }
    Err(std::io::Error::other(format!("no {start}*{end}")))
}
