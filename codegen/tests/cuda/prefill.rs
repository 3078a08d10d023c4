//! Gates on the machine code of prefill attention: what is in flight is so, and nothing waits for it but what has to.

use std::sync::OnceLock;

use fireq_codegen::cuda::cubin::resources;
use fireq_codegen::cuda::nvrtc::{Compiled, compile};
use fireq_kernels::cuda::{Prefill, PrefillConfig, Unit};

use super::machine_code::{count, disassemble, loop_of_products};
use super::units::nvrtc_is_here;

/// Every pipeline, as deep as the cost model has it and shallower.
pub fn attentions() -> Vec<(Prefill, PrefillConfig)> {
    let config = |stages, in_flight| PrefillConfig { stages, in_flight };
    let heads = |head| Prefill { heads: 32, kv_heads: 8, head };
    vec![
        (heads(128), config(4, 3)),
        (heads(128), config(2, 3)),
        (heads(128), config(4, 2)),
        (heads(64), config(6, 3)),
        (heads(64), config(4, 2)),
    ]
}

/// The unit of such an attention.
pub fn unit((attention, config): &(Prefill, PrefillConfig)) -> Unit {
    attention.unit(*config).unwrap()
}

/// Visits every case with its cubin and its machine code.
fn for_each(visit: impl Fn(&str, &(Prefill, PrefillConfig), &[u8], &str)) {
    static COMPILED: OnceLock<Vec<Compiled>> = OnceLock::new();
    if !nvrtc_is_here() {
        return;
    }
    let one = |unit: Unit| compile(&unit.name, &unit.source().unwrap()).unwrap();
    let all = COMPILED.get_or_init(|| attentions().iter().map(|case| one(unit(case))).collect());
    for (case, Compiled { cubin, .. }) in attentions().iter().zip(all) {
        let Some(sass) = disassemble(cubin) else { return };
        visit(&unit(case).name, case, cubin, &sass);
    }
}

/// Products, waits for them, and what of the softmax is between, in order: `(kind, how many in a row)`.
fn order<'a>(body: &[&'a str]) -> Vec<(&'a str, usize)> {
    let kinds = ["QGMMA.64x128x32", "QGMMA", "WARPGROUP.DEPBAR", "MUFU.EX2", "F2FP.SATFINITE.E4M3"];
    let mut runs: Vec<(&str, usize)> = vec![];
    for kind in body.iter().filter_map(|m| kinds.into_iter().find(|kind| m.starts_with(kind))) {
        match runs.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => runs.push((kind, 1)),
        }
    }
    runs
}

/// Compilers make products wait for each other where they find their registers used: each would have its own `ARRIVE`.
#[test]
fn products_of_keys_and_of_values_make_groups_and_none_waits_for_another() {
    for_each(|name, (attention, _), _, sass| {
        let keys = "QGMMA.64x128x32.F32.E4M3.E4M3";
        let values = format!("QGMMA.64x{}x32.F32.E4M3.E4M3", attention.head + 8);
        let (keys, values) = (count(sass, keys), count(sass, &values));
        assert_eq!(keys + values, count(sass, "QGMMA"), "{name}");
        let groups = keys / (attention.head / 32) + values / 4;
        assert_eq!(count(sass, "WARPGROUP.ARRIVE"), groups, "{name}: {keys} and {values}");
    });
}

/// While the softmax of a tile runs, products of the tiles around it do: what is waited for last is asked for before.
#[test]
fn softmax_runs_while_products_do() {
    for_each(|name, (attention, config), _, sass| {
        let of_keys = attention.head / 32;
        let steps = if config.in_flight == 3 { 2 } else { 1 };
        let body = loop_of_products(sass, steps * (of_keys + 4));
        let runs = order(&body);
        let mut products = vec![("QGMMA", 4), ("QGMMA.64x128x32", of_keys)];
        if config.in_flight == 2 {
            products.reverse();
        }
        let mut rest = &runs[..];
        for _ in 0..steps {
            let (step, behind) = rest.split_at(rest.len().min(5));
            assert_eq!(step[..2], products, "{name}: {runs:?}");
            assert_eq!(step[2], ("WARPGROUP.DEPBAR", 1), "{name}: {runs:?}");
            assert!(matches!(step[3], ("MUFU.EX2", 64..=66)), "{name}: {runs:?}");
            assert_eq!(step[4], ("WARPGROUP.DEPBAR", 1), "{name}: {runs:?}");
            let next = behind.iter().position(|(kind, _)| kind.starts_with("QGMMA"));
            rest = &behind[next.unwrap_or(behind.len())..];
        }
        assert!(rest.is_empty(), "{name}: {runs:?}");
        let inside = |kind: &str| body.iter().filter(|m| m.starts_with(kind)).count() / steps;
        assert_eq!(
            inside("MUFU"),
            64 + 2,
            "{name}: one for each score, and what sums of two rows are rescaled by"
        );
        assert_eq!([inside("F2FP"), inside("PRMT")], [32, 16], "{name}: two probabilities each, and four");
        for none in ["LDG", "LDS", "STS", "I2F", "F2I", "LDL", "STL"] {
            assert_eq!(inside(none), 0, "{name}: {none}");
        }
        eprintln!("{name:36} a tile: {} instructions", body.len() / steps);
    });
}

#[test]
fn consumers_take_the_registers_that_the_producer_gives() {
    for_each(|name, _, cubin, sass| {
        assert_eq!(resources(cubin, name).unwrap().registers, 168, "{name}");
        let set: Vec<&str> = sass.lines().filter(|line| line.contains("USETMAXREG")).collect();
        let found = |kind: &str, count: &str| set.iter().any(|l| l.contains(kind) && l.contains(count));
        assert!(set.len() == 2 && found("DEALLOC", "0x18") && found("TRY_ALLOC", "0xf0"), "{name}: {set:#?}");
    });
}
