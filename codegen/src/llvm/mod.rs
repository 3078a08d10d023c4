//! Plan → LLVM IR → object → shared library.
//!
//! One function for each symbol of the plan, specialized for its types: `fn(args, dims, begin, end, scratch)`, where
//! `args` holds the addresses of the parts of the operands and of the result, `dims` the step's `T`, `P`, `L`,
//! `begin..end` a range of [`Plan::units`] and `scratch` memory of the calling thread's own: at least
//! `4·MAX_HEADS·(P+T) + 4096` bytes, and
//! [`linear_scratch`](fireq_kernels::linear_scratch) of the longest row of activations as f32.

mod attention;
mod codes;
mod e4m3;
mod emit;
mod fit;
mod linear;
mod operand;
mod quantize;
mod rows;
mod shuffled;
mod target;
mod vector;
mod wide;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::targets::TargetMachine;
use inkwell::values::AnyValue;
use thiserror::Error;

use fireq_ir::artifact::{CPU_LIBRARY, Target};
use fireq_ir::plan::{Kernel, Launch, Plan, Signature, Storage, heads_together};
use fireq_ir::{DType, Type};

use crate::artifact::{ArtifactError, Code};
use emit::Emit;
use operand::Operand;
pub use target::Cpu;

/// A compiled plan.
#[derive(Clone, Debug)]
pub struct CpuModule {
    /// LLVM's target triple.
    pub triple: String,
    /// CPU features that a machine must have, as `is_x86_feature_detected!` spells them.
    pub features: Vec<String>,
    /// The optimized LLVM IR.
    pub ll: String,
    /// For each symbol, why it is compiled the way it is.
    pub reasons: BTreeMap<String, String>,
}

/// Why no shared library came out.
#[derive(Debug, Error)]
pub enum CompileError {
    /// A launch that this backend has no code for.
    #[error("`{symbol}`: {reason}")]
    Unsupported {
        /// Symbol of the launch.
        symbol: String,
        /// What is not supported.
        reason: String,
    },
    /// LLVM failed.
    #[error("LLVM: {reason}")]
    Llvm {
        /// LLVM's message.
        reason: String,
    },
    /// A file could not be written.
    #[error("{}: {source}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system's C compiler could not link.
    #[error("cannot link with `cc`: {reason}")]
    Linker {
        /// Its message.
        reason: String,
    },
}

/// Compiles every kernel of a plan for `cpu` into the shared library `out`.
pub fn compile(plan: &Plan, cpu: Cpu, out: &Path) -> Result<CpuModule, CompileError> {
    let context = Context::create();
    let machine = target::machine(cpu)?;
    let (module, reasons) = build(&context, plan, cpu, &machine)?;
    target::link(&module, &machine, out)?;
    let triple = machine.get_triple().as_str().to_string_lossy().into_owned();
    Ok(CpuModule { triple, features: cpu.features(), ll: module.print_to_string().to_string(), reasons })
}

/// The kernels of a plan as LLVM IR before optimization: what this crate wrote, for people and tests to read.
pub fn functions(plan: &Plan, cpu: Cpu) -> Result<String, CompileError> {
    let context = Context::create();
    let (module, _) = emit(&context, plan, cpu)?;
    let written = module.get_functions().filter(|f| f.count_basic_blocks() > 0);
    Ok(written.map(|f| f.print_to_string().to_string()).collect::<Vec<_>>().join("\n"))
}

/// The optimized module with every kernel of a plan, and why each is the way it is.
fn build<'c>(
    context: &'c Context,
    plan: &Plan,
    cpu: Cpu,
    machine: &TargetMachine,
) -> Result<(Module<'c>, BTreeMap<String, String>), CompileError> {
    let (module, reasons) = emit(context, plan, cpu)?;
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    target::optimize(&module, machine)?;
    Ok((module, reasons))
}

/// The module with every kernel of a plan, and why each is the way it is.
fn emit<'c>(
    context: &'c Context,
    plan: &Plan,
    cpu: Cpu,
) -> Result<(Module<'c>, BTreeMap<String, String>), CompileError> {
    let module = context.create_module("fireq");
    let mut reasons = BTreeMap::new();
    for launch in &plan.launches {
        if !reasons.contains_key(&*launch.symbol) {
            emit_kernel(context, &module, cpu, launch, &plan.signature(launch))?;
            reasons.insert(launch.symbol.to_string(), reason(&launch.kernel, cpu));
        }
    }
    Ok((module, reasons))
}

/// Compiles a plan into the artifact directory `dir`, with the LLVM IR beside the library when `keep_ir` is set.
pub fn generate(plan: &Plan, cpu: Cpu, keep_ir: bool, dir: &Path) -> Result<Code, ArtifactError> {
    let library = dir.join(CPU_LIBRARY);
    let boxed = |e: Box<dyn std::error::Error + Send + Sync>| ArtifactError::Code(e);
    let folder = library.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder).map_err(|e| boxed(e.into()))?;
    let module = compile(plan, cpu, &library).map_err(|e| match e {
        CompileError::Write { path, source } => ArtifactError::Io { path, source },
        e => boxed(e.into()),
    })?;
    if keep_ir {
        std::fs::write(library.with_extension("ll"), &module.ll).map_err(|e| boxed(e.into()))?;
    }
    let arch = module.triple.split('-').next().unwrap_or_default().to_string();
    Ok(Code {
        target: Some(Target { arch, triple: module.triple, features: module.features }),
        kernels: module.reasons,
        cuda: None,
    })
}

fn reason(kernel: &Kernel, cpu: Cpu) -> String {
    match kernel {
        Kernel::Linear => linear::reason(cpu.registers()),
        Kernel::Attention { heads, kv_heads, .. } => format!(
            "{} heads of a token per unit, which decodes their keys and values once; scores stay in the thread's scratch",
            heads_together(*heads, *kv_heads)
        ),
        _ => "one row per unit; bound by memory".into(),
    }
}

fn emit_kernel<'c>(
    context: &'c Context,
    module: &Module<'c>,
    cpu: Cpu,
    launch: &Launch,
    (kernel, types): &Signature,
) -> Result<(), CompileError> {
    let unsupported =
        |reason: &str| CompileError::Unsupported { symbol: launch.symbol.to_string(), reason: reason.into() };
    let types_only: Vec<&Type> = types.iter().map(|(ty, _)| ty).collect();
    check(kernel, &types_only).map_err(|reason| unsupported(&reason))?;
    for (n, (ty, storage)) in types.iter().enumerate().filter(|(_, (ty, _))| ty.dtype.is_code()) {
        let weight = (kernel, n) == (&Kernel::Linear, 1);
        match storage {
            Storage::Blocked32 => {}
            Storage::Interleaved if weight => {}
            Storage::Plain if weight && ty.dtype == DType::E4M3 => {}
            Storage::Interleaved => {
                return Err(unsupported(&format!("reads {ty} that is a linear's weight")));
            }
            _ => return Err(unsupported("codes are not stored in blocks: the plan is for GPUs")),
        }
    }
    let e = Emit::new(context, module, &launch.symbol, cpu);
    let mut next = 0;
    let operands = types.iter().map(|(ty, storage)| Operand::load(&e, ty, *storage, &mut next));
    let operands: Vec<Operand<'c>> =
        operands.collect::<Option<_>>().ok_or_else(|| unsupported("rows have no fixed size"))?;
    emit_body(&e, kernel, &operands.iter().collect::<Vec<_>>())
        .ok_or_else(|| unsupported("has other operands than its operation"))?;
    e.finish();
    Ok(())
}

/// What the code below does not handle, said before any is emitted.
fn check(kernel: &Kernel, types: &[&Type]) -> Result<(), String> {
    let both_e4m3 =
        |ty: &&&Type| ty.dtype == DType::E4M3 && ty.scheme.0.iter().any(|l| l.dtype == DType::E4M3);
    if let Some(ty) = types.iter().find(both_e4m3) {
        return Err(format!("codes and scales both E4M3: {ty}"));
    }
    match (kernel, types) {
        (Kernel::Linear, [_, weight, _]) if weight.dtype == DType::E4M3 && !one_scale_per_row(weight) => {
            Err(format!("E4M3 weights with other than one scale per row: {weight}"))
        }
        (
            Kernel::NormQuantize { .. }
            | Kernel::LinearBias
            | Kernel::LinearAdd
            | Kernel::LinearSwiglu { .. }
            | Kernel::RopeQuantize { .. }
            | Kernel::RopeAppend { .. }
            | Kernel::QuantizeAppend { .. },
            _,
        ) => Err("a fused launch, which plans for CPUs do not have".into()),
        (Kernel::Quantize { to, .. }, _) if to.scheme.0.len() > 1 => {
            Err(format!("run-time quantization to {to}"))
        }
        _ => Ok(()),
    }
}

fn one_scale_per_row(ty: &Type) -> bool {
    let cols = ty.shape.cols().fixed().unwrap_or(0);
    matches!(ty.scheme.0.as_slice(), [level] if level.count(cols) == 1)
}

fn emit_body<'c>(e: &Emit<'c, '_>, kernel: &Kernel, operands: &[&Operand<'c>]) -> Option<()> {
    let dim = |n| e.load_index(e.pointer_param(1), n);
    match (kernel, operands) {
        (Kernel::Gather, [table, index, out]) => rows::gather(e, table, index, out),
        (Kernel::RmsNorm { eps }, [x, weight, out]) => rows::rms_norm(e, *eps, x, weight, out),
        (Kernel::Linear, [x, w, out]) => linear::linear(e, x, w, out, dim(row_symbol(&out.ty))),
        (Kernel::Bias | Kernel::Add, [a, b, out]) => {
            rows::elementwise(e, a, Some(b), out, |a, b| e.fadd(a, b));
        }
        (Kernel::Scale | Kernel::Mul, [a, b, out]) => {
            rows::elementwise(e, a, Some(b), out, |a, b| e.fmul(a, b));
        }
        (Kernel::Silu, [x, out]) => rows::elementwise(e, x, None, out, |x, _| e.silu(x)),
        (Kernel::RopeTable, [positions, inv_freq, out]) => rows::rope_table(e, positions, inv_freq, out),
        (Kernel::Rope, [x, table, out]) => rows::rope(e, x, table, out),
        (Kernel::KvAppend, [x, cache]) => rows::kv_append(e, dim(1), x, cache),
        (Kernel::Attention { heads, kv_heads, scale, p }, [q, k, v, out]) => {
            let shape =
                attention::Shape { heads: *heads, kv_heads: *kv_heads, scale: *scale, p: *p, past: dim(1) };
            attention::attention(e, &shape, [q, k, v, out]);
        }
        (Kernel::Quantize { fit, .. }, [x, out]) => quantize::quantize(e, *fit, x, out),
        (Kernel::Dequantize, [x, out]) => rows::dequantize(e, x, out),
        (Kernel::Slice { start, .. }, [x, out]) => rows::slice(e, *start, x, out),
        _ => return None,
    }
    Some(())
}

/// Which of the step's sizes a result's rows are: `T` is 0, `L` is 2.
fn row_symbol(ty: &Type) -> usize {
    if ty.shape.rows() == fireq_ir::Dim::sym("L") { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kernel that a quantized model has, as code for a machine without x86's shuffles.
    #[test]
    fn kernels_compile_for_aarch64() {
        let text = include_str!("../../../tests/ops/attention-gqa4-128.ir");
        let linear = include_str!("../../../tests/ops/linear-w4a8-short-group.ir");
        let head = include_str!("../../../tests/ops/linear-e4m3-odd.ir");
        for text in [text, linear, head] {
            let graph = fireq_ir::text::parse_and_verify(text).unwrap();
            let plan = fireq_ir::plan::lower(&graph).unwrap().plan;
            let machine = target::machine_for("aarch64-unknown-linux-gnu", "generic", "").unwrap();
            let context = Context::create();
            let (module, _) = build(&context, &plan, Cpu::Baseline, &machine).unwrap();
            let object = machine.write_to_memory_buffer(&module, inkwell::targets::FileType::Object).unwrap();
            // ELF for AArch64: machine 183 at byte 18.
            assert_eq!(object.as_slice()[18], 183);
        }
    }
}
