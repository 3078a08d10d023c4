//! `fireq doctor`: what is usable here, and how to get the rest.

use std::process::Command;

use fireq_codegen::cuda::nvrtc::{NvrtcFailure, version};
use fireq_codegen::cuda::toolkit::{self, HOW_TO_INSTALL};
use fireq_kernels::cpu::{X86_BF16, X86_V3, X86_V4, has_all, has_feature};
use serde_json::json;

use super::output::{emit, emit_json};
use crate::cli::Doctor;
use crate::failure::Outcome;

/// One thing that some part of fireq needs.
struct Finding {
    what: &'static str,
    usable: bool,
    /// What was found, or how to get it.
    detail: String,
}

/// Prints every finding.
pub fn doctor(options: &Doctor) -> Outcome {
    let findings = [cpu(), threads(), llvm(), linker(), nvrtc(), disassembler(), driver()];
    if options.json {
        let one = |f: &Finding| json!({ "what": f.what, "usable": f.usable, "detail": f.detail });
        return emit_json(&json!({ "findings": findings.iter().map(one).collect::<Vec<_>>() }));
    }
    let line =
        |f: &Finding| format!("{:7} {:12} {}\n", if f.usable { "ok" } else { "missing" }, f.what, f.detail);
    emit(&findings.iter().map(line).collect::<String>())
}

fn cpu() -> Finding {
    let (level, features) = cpu_features();
    let detail = format!("{} {level} {}", std::env::consts::ARCH, features.join(" "));
    Finding { what: "CPU", usable: true, detail: detail.trim_end().into() }
}

fn cpu_features() -> (&'static str, Vec<&'static str>) {
    let level = match [&X86_V3[..], &X86_V4, &X86_BF16].map(has_all) {
        [true, true, true] => "(x86-64-v4-bf16)",
        [true, true, false] => "(x86-64-v4)",
        [true, false, _] => "(x86-64-v3)",
        _ => "(baseline)",
    };
    let all = X86_V3.into_iter().chain(X86_V4).chain(X86_BF16);
    (level, all.filter(|feature| has_feature(feature)).collect())
}

fn threads() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    Finding { what: "threads", usable: true, detail: count.to_string() }
}

fn llvm() -> Finding {
    let usable = cfg!(feature = "llvm");
    let detail = if usable {
        "LLVM 19 is built in: `fireq compile` makes CPU artifacts"
    } else {
        "this build has none: models run with --interpret; install llvm-19-dev libpolly-19-dev zlib1g-dev \
         libzstd-dev libxml2-dev libffi-dev and build with default features"
    };
    Finding { what: "LLVM", usable, detail: detail.into() }
}

fn linker() -> Finding {
    let output = Command::new("cc").arg("--version").output().ok().filter(|o| o.status.success());
    let found = output.map(|o| String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or("").to_string());
    let usable = found.is_some();
    let missing = "`cc` links CPU artifacts; install gcc or clang (Debian: apt install gcc)";
    Finding { what: "linker", usable, detail: found.unwrap_or_else(|| missing.into()) }
}

fn nvrtc() -> Finding {
    let (usable, detail) = match version() {
        Ok((major, minor)) => {
            (true, format!("{major}.{minor}: `fireq compile --target sm_90a` makes GPU kernels"))
        }
        Err(NvrtcFailure::Missing) => (false, format!("compiles GPU kernels; {HOW_TO_INSTALL}")),
        Err(other) => (false, other.to_string()),
    };
    Finding { what: "NVRTC", usable, detail }
}

fn disassembler() -> Finding {
    let found = toolkit::disassembler();
    let missing = format!("shows GPU machine code to tests; {HOW_TO_INSTALL}");
    let detail = found.as_ref().map_or(missing, |path| path.display().to_string());
    Finding { what: "nvdisasm", usable: found.is_some(), detail }
}

fn driver() -> Finding {
    let name = "libcuda.so.1";
    // SAFETY: this is NVIDIA's own library, whose initializers have no preconditions; nothing is called.
    let usable = unsafe { libloading::Library::new(name) }.is_ok();
    let missing = "no NVIDIA driver here: GPU artifacts cannot run on this machine";
    Finding { what: "GPU driver", usable, detail: if usable { name } else { missing }.into() }
}
