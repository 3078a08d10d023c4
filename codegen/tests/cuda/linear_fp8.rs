//! Gates on the machine code of products whose weights are decoded before.

use fireq_codegen::cuda::cubin::resources;
use fireq_ir::DType;
use fireq_kernels::cuda::cost_fp8::DECODE_INSTRUCTIONS;
use fireq_kernels::cuda::{Addend, FP8_THREADS, LinearFp8, LinearFp8Config, Schedule, Unit};

use super::machine_code::{count, disassemble, loop_of_products};
use super::units::compiled;

/// Every tile that there is, in as many stages as fit: together and in turn, alone and in pairs, with every addend.
pub fn linears() -> Vec<(LinearFp8, LinearFp8Config)> {
    use Schedule::{Alternately, Together};
    let linear = |addend| LinearFp8 { channels: 4096, cols: 4096, addend };
    let [nothing, bias, residual] = [Addend::Nothing, Addend::Bias(DType::F32), Addend::Residual].map(linear);
    let config = |[tokens, stages, cluster, promotion]: [usize; 4], schedule| LinearFp8Config {
        tokens,
        stages,
        cluster,
        promotion,
        schedule,
    };
    vec![
        (nothing, config([256, 4, 2, 0], Together)),
        (residual, config([256, 4, 2, 0], Together)),
        (bias, config([256, 4, 1, 0], Together)),
        (nothing, config([192, 5, 2, 1], Together)),
        (residual, config([192, 5, 2, 4], Together)),
        (bias, config([192, 5, 2, 1], Together)),
        (residual, config([128, 6, 2, 4], Together)),
        (nothing, config([128, 6, 1, 1], Together)),
        (residual, config([256, 5, 2, 0], Alternately)),
        (residual, config([192, 6, 2, 4], Alternately)),
        (nothing, config([128, 8, 2, 1], Alternately)),
    ]
}

/// The unit of such a product.
pub fn unit((linear, config): &(LinearFp8, LinearFp8Config)) -> Unit {
    linear.unit(config, 132, String::new()).unwrap()
}

/// A warpgroup's step is four products whose operands both are descriptors, of which one waits for the group before; the
/// loop has nothing but them, barriers and addresses, and with promotion additions outside of it.
#[test]
fn operands_lie_in_shared_memory_and_steps_are_four_products() {
    let Some(units) = compiled() else { return };
    for case in linears() {
        let (name, config) = (unit(&case).name, case.1);
        let (_, compiled) = units.iter().find(|(unit, _)| unit.name == name).unwrap();
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let product = format!("QGMMA.64x{}x32.F32.E4M3.E4M3", config.tokens);
        let products: Vec<&str> = sass.lines().filter(|line| line.contains("QGMMA")).collect();
        let descriptors = |line: &&&str| line.contains(&product) && line.contains("gdesc[");
        assert_eq!(products.iter().filter(descriptors).count(), products.len(), "{name}: {products:#?}");
        let body = loop_of_products(&sass, 4);
        let inside = |names: &[&str]| body.iter().filter(|m| names.iter().any(|n| m.starts_with(n))).count();
        assert_eq!(inside(&["QGMMA"]), 4, "{name}: {body:#?}");
        let sums = if config.promotion == 1 { config.tokens / 2 } else { 0 };
        assert_eq!(inside(&["FADD"]), sums, "{name}: {body:#?}");
        for none in ["LDG", "STG", "LDS", "STS", "MEMBAR", "CCTL", "FENCE", "ERRBAR"] {
            assert_eq!(inside(&[none]), 0, "{name}: {none}");
        }
        eprintln!("{name:48} a step: {} instructions", body.len());
        assert!(body.len() - sums <= 80, "{name}: {body:#?}");
    }
}

/// Registers are shared out anew: what the launch gives all threads alike is what consumers and producers have together.
#[test]
fn consumers_take_the_registers_that_the_producer_gives() {
    let Some(units) = compiled() else { return };
    for case in linears() {
        let name = unit(&case).name;
        let (_, compiled) = units.iter().find(|(unit, _)| unit.name == name).unwrap();
        let taken = resources(&compiled.cubin, &name).unwrap();
        assert_eq!(taken.registers, 168, "{name}");
        assert!(taken.registers as usize * FP8_THREADS >= 2 * 128 * 240 + 128 * 24, "{name}");
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let set: Vec<&str> = sass.lines().filter(|line| line.contains("USETMAXREG")).collect();
        let found = |kind: &str, count: &str| set.iter().any(|l| l.contains(kind) && l.contains(count));
        assert!(set.len() == 2 && found("DEALLOC", "0x18") && found("TRY_ALLOC", "0xf0"), "{name}: {set:#?}");
    }
}

#[test]
fn tokens_of_pairs_are_multicast_and_sums_go_out_in_16_bytes() {
    let Some(units) = compiled() else { return };
    for case in linears() {
        let (name, (linear, config)) = (unit(&case).name, case);
        let (_, compiled) = units.iter().find(|(unit, _)| unit.name == name).unwrap();
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let (copies, shared) = (count(&sass, "UTMALDG.2D"), count(&sass, "UTMALDG.2D.MULTICAST"));
        let pairs = config.cluster == 2;
        assert!(copies > 0 && shared == if pairs { copies / 2 } else { 0 }, "{name}: {shared} of {copies}");
        // Each thread has a quad of sums for every eight tokens, and reads as many of a residual.
        let quads = config.tokens / 8;
        assert_eq!([count(&sass, "STG.E.128"), count(&sass, "STG")], [quads; 2], "{name}");
        let factors = if linear.addend == Addend::Bias(DType::F32) { 2 } else { 1 };
        let read = if linear.addend == Addend::Residual { quads } else { 0 };
        assert_eq!(count(&sass, "LDG.E.128"), read + factors, "{name}");
        assert_eq!(count(&sass, "LDG"), read + factors + config.tokens.div_ceil(128), "{name}: token scales");
    }
}

#[test]
fn weights_are_read_and_written_in_16_bytes() {
    let Some(units) = compiled() else { return };
    let decoders: Vec<_> = units.iter().filter(|(unit, _)| unit.name.starts_with("decode_weight")).collect();
    assert_eq!(decoders.len(), 2);
    for (unit, compiled) in decoders {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let name = &unit.name;
        let scales = count(&sass, "LDG.E.U16");
        assert_eq!(count(&sass, "LDG.E.128"), 2, "{name}: codes\n{sass}");
        assert_eq!(count(&sass, "LDG"), 2 + scales, "{name}: nothing else but scales is read\n{sass}");
        assert_eq!([count(&sass, "STG.E.128"), count(&sass, "STG")], [4, 4], "{name}\n{sass}");
        assert_eq!(count(&sass, "SHFL"), 8, "{name}: two for each sixteen columns of a lane");
        let lines = sass.lines().filter(|line| line.contains("*/") && line.contains(';')).count();
        eprintln!("{name}: {lines} instructions for a lane's 64 weights");
        assert!(lines <= DECODE_INSTRUCTIONS, "{name}: {lines}");
    }
}
