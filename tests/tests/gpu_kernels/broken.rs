//! Kernels broken on purpose: the simulator or the comparison must notice, or these tests prove nothing.

use fireq_codegen::cuda::nvrtc::compile;
use fireq_kernels::cuda::params::{Params, Quantize};
use fireq_kernels::cuda::{Unit, quantize};
use fireq_sim::{Memory, Module, Options, run};

use super::device::{device, launch_of};

/// Codes of two rows of 1000 numbers by the kernel as it is, or with `right` replaced by `wrong` in its source; `Err`
/// with what the simulator says of it.
fn codes(right: &str, wrong: &str) -> Result<Vec<u8>, String> {
    let (cols, rows) = (1000, 2);
    let unit = quantize(cols).unwrap();
    let source = unit.source().unwrap();
    assert_eq!(source.matches(right).count(), 1, "`{right}` is once in the source");
    let x: Vec<u8> =
        (0..cols * rows).flat_map(|i| ((i as f32 * 0.7).sin() * (i + 1) as f32).to_le_bytes()).collect();
    let mut memory = Memory::new();
    let (codes, scales) = (memory.alloc("codes", cols * rows), memory.alloc("scales", 4 * rows));
    let params = Quantize { x: memory.alloc_with("x", &x), codes, scales };
    launch(&unit, &source.replace(right, wrong), rows, &params, &mut memory)?;
    memory.read(codes, cols * rows).map(<[u8]>::to_vec).map_err(|e| e.to_string())
}

fn launch<P: Params>(
    unit: &Unit,
    source: &str,
    rows: usize,
    params: &P,
    memory: &mut Memory,
) -> Result<(), String> {
    let compiled = compile(&unit.name, source).unwrap();
    let module = Module::parse(&compiled.ptx).unwrap();
    let launch = launch_of(unit, rows, 0, params);
    run(&module, &launch, memory, &Options::default()).map(drop).map_err(|fault| fault.to_string())
}

#[test]
fn a_missing_barrier_an_end_too_late_and_a_wrong_scale_are_caught() {
    if device().is_none() {
        return;
    }
    let same = "synchronize();\n    x = shared[0];";
    let right = codes(same, same).unwrap();
    let barrier = codes(same, "x = shared[0];").unwrap_err();
    assert!(barrier.contains("shared"), "{barrier}");
    let end = codes("return column(n) < COLS;", "return column(n) <= COLS;").unwrap_err();
    assert!(end.contains("codes") || end.contains("`x`"), "{end}");
    let scale = codes("E4M3_MAX = 448.0f;", "E4M3_MAX = 447.0f;").unwrap();
    assert!(scale != right, "another scale gives other codes");
}
