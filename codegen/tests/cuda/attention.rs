//! Gates on the machine code of decode attention: what the cost model counts on.

use fireq_codegen::cuda::cubin::resources;

use super::machine_code::{count, disassemble, product_loop};
use super::units::{attention, compiled};

/// What a step has for the last tile of a sequence, which others jump over.
const LAST: usize = 56;

/// Tiles of a step: decoded by exact arithmetic in halves, 15 instructions for eight codes, for products on tensor cores.
#[test]
fn tiles_take_the_instructions_that_the_cost_model_counts() {
    let Some(units) = compiled() else { return };
    for of in attention() {
        let name = of.unit().unwrap().name;
        let (unit, compiled) = units.iter().find(|(unit, _)| unit.name == name).unwrap();
        let registers = resources(&compiled.cubin, &name).unwrap().registers as usize;
        assert!(3 * unit.cta.threads * registers <= 65536, "{name}: {registers} registers for three CTAs");
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let (step, blocks, columns) = (of.step(), of.head / 64, of.queries());
        // Keys and values of a block have two products each; the first values' go with products with ones.
        let body = product_loop(&sass, step * (4 * blocks + 2));
        let count = |names: &[&str]| body.iter().filter(|m| names.iter().any(|n| m.starts_with(n))).count();
        let product = format!("QGMMA.64x{columns}x32.F32.E4M3.E4M3");
        assert_eq!(count(&[&product]), count(&["QGMMA", "HGMMA", "HMMA", "IMMA"]), "{name}");
        let words = step * blocks * 2 * 4;
        assert_eq!(count(&["F2FP.SATFINITE.E4M3.F16"]), 4 * words, "{name}: two codes at a time are rounded");
        assert_eq!([count(&["HADD2"]), count(&["HFMA2"])], [2 * words; 2], "{name}");
        assert_eq!(
            count(&["HMUL2"]),
            2 * words + 6 * step,
            "{name}: and offsets of two keys and eight values"
        );
        let (pairs, queries) = (step * columns / 2, columns / 4);
        assert_eq!(count(&["F2FP.SATFINITE.E4M3.F32"]), pairs / 2, "{name}: probabilities");
        assert_eq!(
            count(&["MUFU.EX2"]),
            pairs + queries,
            "{name}: exponentials and what sums are rescaled by"
        );
        assert_eq!(
            count(&["LDS.128"]),
            step * (2 * blocks + 2) + queries,
            "{name}: codes, scales and maxima"
        );
        assert_eq!(count(&["LDS"]) - count(&["LDS.128"]), step, "{name}: scales of keys");
        assert_eq!(count(&["WARPGROUP.ARRIVE"]), 2 * blocks * step, "{name}: one for each block");
        for none in ["LDG", "LDL", "STL", "I2F", "F2I", "BAR.ARV", "ATOM"] {
            assert_eq!(count(&[none]), 0, "{name}: {none}");
        }
        let integers =
            count(&["PRMT", "LOP3", "SHF", "VIADD", "IADD", "ISETP", "SEL", "LEA", "F2FP", "FMNMX"]);
        let found = [body.len(), integers].map(|n| n as f64 / step as f64);
        let model = of.tile_instructions();
        eprintln!("{name:30} a tile: {found:.1?} instructions, the last tile's included; {model:?}");
        for (n, of_tile) in [(body.len(), model.issued), (integers, model.integer)] {
            assert!(n <= step * of_tile + LAST, "{name}: {n}");
            assert!(n + LAST > step * of_tile, "{name}: the model has too many: {n}");
        }
    }
}

#[test]
fn queries_parts_and_gathered_codes_are_read_in_16_bytes() {
    let Some(units) = compiled() else { return };
    let of = |kind: &'static str| units.iter().filter(move |(unit, _)| unit.name.starts_with(kind));
    for (unit, compiled) in of("decode_attention").chain(of("gather_pages")) {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let wide = count(&sass, "LDG.E.128") + count(&sass, "LD.E.128");
        assert!(wide > 0, "{}:\n{sass}", unit.name);
        let copies = count(&sass, "UBLKCP");
        assert_eq!(copies > 0, unit.name.starts_with("decode"), "{}: tiles come by bulk copies", unit.name);
    }
    for (unit, compiled) in of("combine_d128") {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        assert!(count(&sass, "LDG.E.128") >= 4 && count(&sass, "STG.E.128") == 1, "{}:\n{sass}", unit.name);
    }
}
