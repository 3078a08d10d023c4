//! Where NVRTC and the disassembler are: in the folder that `cargo xtask setup` fills, in the user's cache, or where the
//! system looks.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// How to get what is missing.
pub const HOW_TO_INSTALL: &str = "in the sources of fireq run `cargo xtask setup`; elsewhere \
    pip install --no-deps --target ~/.cache/fireq/cuda 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cuda-nvdisasm==13.2.*', \
    or set FIREQ_CUDA to a folder with lib/libnvrtc.so.13";

const NVRTC: &str = "libnvrtc.so.13";

/// A folder with `lib` and `bin` of CUDA 13: `FIREQ_CUDA` where that is set, and otherwise `cuda` beside the folders that
/// this program lies in, or the user's cache.
pub fn toolkit() -> Option<PathBuf> {
    if let Some(given) = given() {
        return Some(given);
    }
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.ancestors().skip(1).take(3).map(|dir| dir.join("cuda"));
    let mut wheels = beside.chain(cache_dir().map(|dir| dir.join("cuda"))).map(|dir| dir.join("nvidia/cu13"));
    wheels.find(|dir| dir.join("lib").join(NVRTC).exists())
}

fn given() -> Option<PathBuf> {
    std::env::var_os("FIREQ_CUDA").map(PathBuf::from)
}

/// fireq's folder in the user's cache.
pub fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    cache.map(|dir| dir.join("fireq"))
}

/// `nvdisasm`, which takes cubins apart: of the toolkit's folder, or on the path.
pub fn disassembler() -> Option<PathBuf> {
    let runs = |program: &Path| {
        let output = std::process::Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let own = toolkit().map(|dir| dir.join("bin/nvdisasm"));
    own.into_iter().chain([PathBuf::from("nvdisasm")]).find(|program| runs(program))
}

/// Loads NVRTC, so that it is there when it is asked for by name; says from where. `None` where there is none.
pub(super) fn load() -> Option<&'static Path> {
    static LOADED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let load = || {
        let Some(dir) = toolkit().map(|dir| dir.join("lib")) else {
            open(Path::new(NVRTC))?;
            return Some(PathBuf::from(NVRTC));
        };
        // NVRTC asks for its builtins by name, without saying where they are.
        open(&dir.join("libnvrtc-builtins.so.13.0"))?;
        open(&dir.join(NVRTC))?;
        Some(dir.join(NVRTC))
    };
    LOADED.get_or_init(load).as_deref()
}

/// Opens a library for the rest of the program.
fn open(path: &Path) -> Option<()> {
    // SAFETY: these are NVIDIA's own libraries, whose initializers have no preconditions.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.ok()?;
    std::mem::forget(library);
    Some(())
}
