//! The machine that code is generated for, and the way from module to shared library.

use std::path::Path;
use std::process::Command;

use inkwell::OptimizationLevel;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};

use fireq_kernels::VectorRegisters;
use fireq_kernels::cpu::{X86_BF16, X86_V3, X86_V4, has_all};

use super::CompileError;

/// Which CPU to compile for. Levels rather than models, so that an artifact runs on every machine of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// The highest level that this machine has.
    Host,
    /// What every machine of this architecture has: SSE2, or NEON.
    Baseline,
    /// x86-64-v3: AVX2, FMA, F16C, BMI.
    X86V3,
    /// x86-64-v4: and AVX-512 F, BW, CD, DQ, VL.
    X86V4,
    /// And products of bf16: AVX-512 BF16.
    X86V4Bf16,
}

/// What the code generator may use beyond plain vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    Generic,
    Avx2,
    Avx512,
    Avx512Bf16,
}

impl Cpu {
    /// The level that `Host` stands for.
    #[must_use]
    pub fn resolve(self) -> Self {
        match self {
            Cpu::Host => host_level(),
            level => level,
        }
    }

    /// True when this level has everything that `other` has.
    pub fn includes(self, other: Cpu) -> bool {
        let has = self.features();
        other.features().iter().all(|feature| has.contains(feature))
    }

    /// The features that a machine must have, as `is_x86_feature_detected!` spells them.
    pub fn features(self) -> Vec<String> {
        let levels: &[&[&str]] = match self.resolve() {
            Cpu::X86V3 => &[&X86_V3],
            Cpu::X86V4 => &[&X86_V3, &X86_V4],
            Cpu::X86V4Bf16 => &[&X86_V3, &X86_V4, &X86_BF16],
            _ => &[],
        };
        levels.iter().copied().flatten().map(|f| (*f).to_string()).collect()
    }

    pub(super) fn registers(self) -> VectorRegisters {
        VectorRegisters::of(std::env::consts::ARCH, &self.features())
    }

    pub(super) fn isa(self) -> Isa {
        match self.resolve() {
            Cpu::X86V4Bf16 => Isa::Avx512Bf16,
            Cpu::X86V4 => Isa::Avx512,
            Cpu::X86V3 => Isa::Avx2,
            _ => Isa::Generic,
        }
    }

    fn llvm_name(self) -> &'static str {
        match self.resolve() {
            Cpu::X86V4 | Cpu::X86V4Bf16 => "x86-64-v4",
            Cpu::X86V3 => "x86-64-v3",
            _ if cfg!(target_arch = "x86_64") => "x86-64",
            _ => "generic",
        }
    }
}

fn host_level() -> Cpu {
    match [&X86_V3[..], &X86_V4, &X86_BF16].map(has_all) {
        [true, true, true] => Cpu::X86V4Bf16,
        [true, true, false] => Cpu::X86V4,
        [true, false, _] => Cpu::X86V3,
        _ => Cpu::Baseline,
    }
}

/// The machine that `cpu` stands for on this architecture.
pub(super) fn machine(cpu: Cpu) -> Result<TargetMachine, CompileError> {
    let features = if cpu.isa() == Isa::Avx512Bf16 { "+avx512bf16" } else { "" };
    machine_for(&TargetMachine::get_default_triple().as_str().to_string_lossy(), cpu.llvm_name(), features)
}

/// A machine by LLVM's names.
pub(super) fn machine_for(triple: &str, cpu: &str, features: &str) -> Result<TargetMachine, CompileError> {
    let fail = |reason: String| CompileError::Llvm { reason };
    Target::initialize_x86(&InitializationConfig::default());
    Target::initialize_aarch64(&InitializationConfig::default());
    let triple = TargetTriple::create(triple);
    let target = Target::from_triple(&triple).map_err(|e| fail(e.to_string()))?;
    let (level, relocation, model) = (OptimizationLevel::Aggressive, RelocMode::PIC, CodeModel::Default);
    let machine = target.create_target_machine(&triple, cpu, features, level, relocation, model);
    machine.ok_or_else(|| fail(format!("no target machine for {triple}")))
}

/// Verifies and optimizes a module.
pub(super) fn optimize(module: &Module<'_>, machine: &TargetMachine) -> Result<(), CompileError> {
    let fail = |e: inkwell::support::LLVMString| CompileError::Llvm { reason: e.to_string() };
    module.verify().map_err(fail)?;
    module.run_passes("default<O3>", machine, PassBuilderOptions::create()).map_err(fail)
}

/// Writes a module as the shared library `out`, linked by the system's C compiler.
pub(super) fn link(module: &Module<'_>, machine: &TargetMachine, out: &Path) -> Result<(), CompileError> {
    let object = out.with_extension("o");
    let code = machine
        .write_to_memory_buffer(module, FileType::Object)
        .map_err(|e| CompileError::Llvm { reason: e.to_string() })?;
    // LLVM ends the process when it cannot write.
    std::fs::write(&object, code.as_slice())
        .map_err(|source| CompileError::Write { path: object.clone(), source })?;
    let linked = Command::new("cc")
        .args(["-shared", "-Wl,--build-id=none", "-o"])
        .arg(out)
        .arg(&object)
        .arg("-lm")
        .output();
    let removed = std::fs::remove_file(&object);
    let linked = linked.map_err(|e| CompileError::Linker { reason: e.to_string() })?;
    removed.map_err(|e| CompileError::Linker { reason: e.to_string() })?;
    if linked.status.success() {
        return Ok(());
    }
    Err(CompileError::Linker { reason: String::from_utf8_lossy(&linked.stderr).trim().to_string() })
}
