//! What compiling for GPUs needs: NVRTC, and a disassembler for the checks on machine code. Both come as Python wheels
//! and are unpacked into `target/cuda`; nothing else is installed, and no GPU is needed.

use std::path::PathBuf;

use crate::run::{command, release_dir, run, succeeds};

/// The packages: the compiler has the version of the driver that runs its cubins.
const PACKAGES: [&str; 2] = ["nvidia-cuda-nvrtc==13.0.*", "nvidia-cuda-nvdisasm==13.2.*"];
/// What must be there, below [`cuda_dir`].
const FILES: [&str; 2] = ["nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/bin/nvdisasm"];

/// Fetches what is missing. Offline, or where there are no wheels for the machine, says so: all but the checks of GPU code
/// works without.
pub fn setup_cuda() {
    let dir = cuda_dir();
    if FILES.iter().all(|file| dir.join(file).exists()) {
        return;
    }
    eprintln!("fetching {} into {}", PACKAGES.join(" and "), dir.display());
    if let Err(reason) = fetch(&dir) {
        eprintln!(
            "{reason}\nNVRTC is not installed: nothing is compiled for GPUs, and checks of GPU code are skipped"
        );
    }
}

/// Where `fireq` looks: beside the folder of its own binary.
fn cuda_dir() -> PathBuf {
    release_dir().with_file_name("cuda")
}

fn fetch(dir: &std::path::Path) -> Result<(), String> {
    let by_hand = format!(
        "to install it by hand, anywhere with pip: pip install --no-deps --target {} '{}' '{}'",
        dir.display(),
        PACKAGES[0],
        PACKAGES[1]
    );
    let python = ["python3", "python"].into_iter().find(|name| succeeds(&[name, "-m", "pip", "--version"]));
    let python =
        python.ok_or_else(|| format!("pip is missing (Debian: apt-get install python3-pip); {by_hand}"))?;
    let target = dir.display().to_string();
    let mut install =
        command(&[python, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", &target]);
    run(install.args(PACKAGES)).map_err(|reason| format!("{reason}; {by_hand}"))
}
