//! Gates on machine code: what is promised about memory accesses holds in SASS, and nothing spills.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use fireq_codegen::cuda::cubin::resources;
use fireq_codegen::cuda::toolkit::disassembler;
use fireq_kernels::cuda::cost::{MULTIPLIED, StepInstructions, registers, step_instructions};

use super::units::{compiled, linears};

/// The machine code of a cubin as text; `None`, said on stderr, where there is no disassembler.
pub fn disassemble(cubin: &[u8]) -> Option<String> {
    static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(disassembler);
    let Some(program) = &*PROGRAM else {
        eprintln!("skipped: machine code of GPU kernels: no disassembler (cargo xtask setup)");
        return None;
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(cubin).unwrap();
    let output = Command::new(program).arg("-c").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Instructions that start with this mnemonic, with or without a predicate.
pub fn count(sass: &str, mnemonic: &str) -> usize {
    sass.split_whitespace().filter(|word| word.starts_with(mnemonic)).count()
}

#[test]
fn nothing_spills_and_nothing_uses_local_memory() {
    let Some(units) = compiled() else { return };
    for (unit, compiled) in units {
        let taken = resources(&compiled.cubin, &unit.name).unwrap();
        eprintln!("{:40} {taken:?}", unit.name);
        assert_eq!(taken.local, 0, "{}", unit.name);
        assert!(
            taken.registers > 0 && taken.registers * unit.cta.threads as u32 <= 65536,
            "{}: {taken:?}",
            unit.name
        );
        let Some(sass) = disassemble(&compiled.cubin) else { continue };
        assert!(count(&sass, "EXIT") > 0, "{}: no machine code:\n{sass}", unit.name);
        for local in ["LDL", "STL"] {
            assert_eq!(count(&sass, local), 0, "{}: {local}", unit.name);
        }
        overlaps_others(&unit.name, &sass);
    }
}

/// Programs let every launch but the first overlap the one before: every kernel waits for it, products in consumers and in the
/// thread that asks for copies, and lets later ones begin.
fn overlaps_others(name: &str, sass: &str) {
    let [waits, begins] = ["ACQBULK", "PREEXIT"].map(|mnemonic| count(sass, mnemonic));
    assert!(
        (1..=2).contains(&waits) && begins == 1,
        "{name}: {waits} waits, later ones begin {begins} times"
    );
}

#[test]
fn loads_are_as_wide_as_reasons_say() {
    let Some(units) = compiled() else { return };
    let mut promised = 0;
    for (unit, compiled) in units.iter().filter(|(unit, _)| unit.reason.contains("16-byte loads")) {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        assert!(count(&sass, "LDG.E.128") > 0, "{}:\n{sass}", unit.name);
        promised += 1;
    }
    assert!(promised > 10, "{promised} units promise wide loads");
}

/// Pages of keys and of values and the workspace of values always; codes of queries and the workspace of keys, both in two
/// halves, where lanes have as much.
#[test]
fn stores_are_as_wide_as_reasons_say() {
    let Some(units) = compiled() else { return };
    let mut wide = 0;
    for (unit, compiled) in units.iter().filter(|(unit, _)| unit.name.starts_with("qkv")) {
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        assert!(unit.reason.contains("stores of 16 bytes of pages"), "{}", unit.reason);
        let halves = unit.reason.contains("and 16 of FP8");
        wide += usize::from(halves);
        let [all, half] = ["STG.E.128", "STG.E.64"].map(|store| count(&sass, store));
        assert!(all >= 3 + if halves { 4 } else { 0 }, "{}:\n{sass}", unit.name);
        assert!(half == 0 || !halves, "{}", unit.name);
    }
    assert!(wide > 1, "{wide} units promise wide stores of FP8");
}

/// Mnemonics of the innermost loop around as many products, four for each step: from a label that a branch behind them leads
/// back to.
pub fn product_loop(sass: &str, of: usize) -> Vec<&str> {
    let mut all: Vec<&str> = vec![];
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    let mut loops = vec![];
    for line in sass.lines() {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, all.len());
            continue;
        }
        let Some((_, code)) = line.split_once("*/") else { continue };
        let Some(mnemonic) = code.split_whitespace().find(|word| !word.starts_with('@')) else { continue };
        all.push(mnemonic);
        let target = code.split_once("`(").and_then(|(_, rest)| rest.split_once(')'));
        if let Some(start) = target.and_then(|(label, _)| labels.get(label)) {
            loops.push(*start..all.len());
        }
    }
    let products =
        |range: &Range<usize>| all[range.clone()].iter().filter(|m| m.starts_with("QGMMA")).count();
    let innermost =
        loops.into_iter().filter(|range| products(range) == of).min_by_key(ExactSizeIterator::len);
    innermost.map(|range| all[range].to_vec()).expect("a loop of so many products")
}

/// What the loop has beside its steps where only every other stage begins with a promotion: a branch with its own wait, and its
/// own way to let a stage go.
const BRANCH: usize = 8;

/// The steps of a stage: what the cost model counts on. Byte permutations and additions are exact; what barriers and
/// addresses take differs a little from unit to unit, and some of it goes to the uniform pipe.
#[test]
fn products_take_the_instructions_that_the_cost_model_counts() {
    let Some(units) = compiled() else { return };
    for (linear, config) in linears() {
        let name = linear.unit(&config, String::new()).unwrap().name;
        let (_, compiled) = units.iter().find(|(unit, _)| unit.name == name).unwrap();
        assert!(
            resources(&compiled.cubin, &name).unwrap().registers as usize <= registers(&config, linear.group),
            "{name}"
        );
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let steps = config.steps;
        let body = product_loop(&sass, 4 * steps);
        let count = |names: &[&str]| body.iter().filter(|m| names.iter().any(|n| m.starts_with(n))).count();
        let tables = 128 / linear.group;
        assert_eq!(
            count(&["PRMT"]),
            steps * (8 * 6 + 8 * tables),
            "{name}: 6 for 8 weights, 8 for the tables of two rows"
        );
        assert_eq!(count(&["F2FP", "HMUL2"]), steps * 17 * tables, "{name}: only tables are computed");
        let (sums, promotion) = (config.tokens / 2, config.promotion);
        let branches = promotion > steps;
        let promotions = if promotion > 0 { steps.div_ceil(promotion) } else { 0 };
        assert_eq!(count(&["FADD"]), promotions * sums, "{name}: one for each sum that is promoted");
        assert_eq!(
            [count(&["WARPGROUP.ARRIVE"]), count(&["WARPGROUP.DEPBAR"])],
            [steps, steps + promotions],
            "{name}: products of a step do not wait for each other"
        );
        let barriers = [count(&["SYNCS.PHASECHK"]), count(&["SYNCS.ARRIVE"])];
        assert_eq!(barriers, [1, 1 + usize::from(branches)], "{name}: a stage is waited for and let go once");
        if promotion >= steps {
            decoding_goes_on_while_tensor_cores_do(&name, &body);
        }
        for none in ["I2F", "F2I", "FMUL", "HFMA2.MMA.BF16", "LDG", "LDL", "STL", "MUFU"] {
            assert_eq!(count(&[none]), 0, "{name}: {none}");
        }
        assert_eq!(count(&["IMAD.HI"]), steps * MULTIPLIED, "{name}: shifts of 8 weights are products");
        let StepInstructions { issued, integer } = step_instructions(&config, linear.group);
        let [sums, branch] = if branches { [sums / 2, BRANCH] } else { [0; 2] };
        let integers = count(&["PRMT", "LOP3", "SHF", "VIADD", "IADD", "ISETP", "SEL", "LEA"]);
        eprintln!(
            "{name:40} a step: {:5.1} instructions, {:5.1} of them integer",
            body.len() as f64 / steps as f64,
            integers as f64 / steps as f64
        );
        assert!(body.len() <= steps * (issued + 1) + sums + branch, "{name}: {}", body.len());
        assert!(integers <= steps * (integer + 1) + branch, "{name}: {integers}");
    }
}

/// Sums are promoted between the wait for products and the next ones, and nothing else is done there.
fn decoding_goes_on_while_tensor_cores_do(name: &str, body: &[&str]) {
    let kinds = ["WARPGROUP.DEPBAR", "PRMT", "FADD", "QGMMA"];
    let order: Vec<&str> =
        body.iter().filter_map(|m| kinds.into_iter().find(|kind| m.starts_with(kind))).collect();
    for pair in order.windows(2).filter(|pair| pair.contains(&"FADD")) {
        let right = matches!(pair, ["WARPGROUP.DEPBAR" | "FADD", "FADD"] | ["FADD", "QGMMA"]);
        assert!(right, "{name}: {pair:?}");
    }
}
