//! Tests on a driver whose GPU is the simulator.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

use fireq::build::{BuildOptions, Plans, Targets, build_anew};
use fireq::import::import;
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::version;
use fireq_codegen::llvm::Cpu;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_runtime::Artifact;
use fireq_runtime::cuda::Gpu;
use libloading::Library;

/// Where the artifact is, for a test that runs on the simulated driver.
const ARTIFACT: &str = "FIREQ_TEST_ARTIFACT";

/// The artifact of the model that is in a folder, which may be made in an empty one, and a simulated GPU. The driver is found by
/// the name that programs look for when they start, so that the test is started again as a program of its own, in which alone this
/// gives something.
pub fn with_model(test: &str, model: impl FnOnce(&Path) -> PathBuf) -> Option<(Artifact, Gpu)> {
    if let Ok(dir) = std::env::var(ARTIFACT) {
        return Some((Artifact::open(Path::new(&dir)).unwrap(), Gpu::open(0).unwrap()));
    }
    if version().is_err() {
        eprintln!("skipped: the runtime on a simulated GPU: no NVRTC (cargo xtask setup)");
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    let artifact = temp.path().join("m.fireq");
    compile(&model(temp.path()), &artifact);
    let executable = std::env::current_exe().unwrap();
    let library = executable.with_file_name("libsimcuda.so");
    std::os::unix::fs::symlink(library, temp.path().join("libcuda.so")).unwrap();
    let output = Command::new(executable)
        .args([test, "--exact", "--nocapture"])
        .env(ARTIFACT, &artifact)
        .env("LD_LIBRARY_PATH", temp.path())
        .env("FIREQ_SIM_PTX", artifact.join("kernels"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    None
}

fn compile(model: &Path, out: &Path) {
    let mut model = import(model).unwrap();
    fireq_passes::pipeline("full").unwrap().run(&mut model.graph).unwrap();
    let plans = Plans::of(&model.graph, Targets { cpu: true, cuda: true }).unwrap();
    build_anew(&model, &plans, "full", &options(), out).unwrap();
}

pub fn options() -> BuildOptions {
    BuildOptions {
        cpu: Cpu::Host,
        threads: 2,
        emit_llvm: false,
        cache: Cache::of_user(),
        tuning: Tuning::default(),
    }
}

/// How often the driver's functions were called.
pub struct Calls(Library);

impl Calls {
    /// Those of the driver that this program has.
    pub fn new() -> Self {
        // SAFETY: the library is loaded already, and has no initializers.
        Calls(unsafe { Library::new("libcuda.so") }.unwrap())
    }

    /// Of each of these functions, while something is done.
    pub fn during<const N: usize>(&self, names: [&str; N], work: impl FnOnce()) -> [u64; N] {
        let before = names.map(|name| self.of(name));
        work();
        std::array::from_fn(|n| self.of(names[n]) - before[n])
    }

    fn of(&self, name: &str) -> u64 {
        let name = CString::new(name).unwrap();
        // SAFETY: the driver has this function, with this type, and the name lives as long as the call.
        unsafe {
            let calls =
                self.0.get::<unsafe extern "C" fn(*const std::ffi::c_char) -> u64>(b"fireq_sim_calls");
            calls.unwrap()(name.as_ptr())
        }
    }
}
