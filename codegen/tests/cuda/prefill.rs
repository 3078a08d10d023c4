//! Gates on the machine code of prefill attention: what is in flight is so, and nothing waits for it but what has to.

use std::sync::OnceLock;

use fireq_codegen::cuda::cubin::resources;
use fireq_codegen::cuda::nvrtc::{Compiled, compile};
use fireq_ir::DType;
use fireq_kernels::cuda::cost_prefill::tile_instructions;
use fireq_kernels::cuda::{Prefill, PrefillConfig, Unit};

use super::machine_code::{count, disassemble, product_loop};
use super::units::nvrtc_is_here;

/// Every pipeline, as deep as shared memory allows and shallower; heads of one panel, of two, and filled up; both outputs.
pub fn attentions() -> Vec<(Prefill, PrefillConfig)> {
    let config = |stages, in_flight| PrefillConfig { stages, in_flight, promotes: false, cluster: 1 };
    let promoted = |stages, in_flight| PrefillConfig { stages, in_flight, promotes: true, cluster: 1 };
    let pairs = |config| PrefillConfig { cluster: 2, ..config };
    let heads = |head, output| Prefill { heads: 32, kv_heads: 8, head, output, causal: true };
    let full = |head, output| Prefill { causal: false, ..heads(head, output) };
    vec![
        (heads(128, DType::F32), config(6, 3)),
        (heads(128, DType::BF16), config(2, 3)),
        (heads(128, DType::BF16), config(6, 2)),
        (heads(128, DType::F32), pairs(config(6, 3))),
        (heads(128, DType::F32), pairs(promoted(6, 2))),
        (heads(256, DType::F32), pairs(promoted(2, 1))),
        (heads(64, DType::BF16), config(8, 3)),
        (heads(64, DType::F32), config(4, 2)),
        (heads(128, DType::BF16), promoted(6, 2)),
        (heads(64, DType::BF16), promoted(8, 3)),
        (heads(64, DType::F32), promoted(8, 2)),
        (heads(80, DType::BF16), config(6, 3)),
        (heads(96, DType::F32), config(4, 2)),
        (heads(256, DType::F32), config(2, 2)),
        (heads(256, DType::BF16), config(2, 2)),
        (heads(256, DType::F32), promoted(2, 1)),
        (heads(192, DType::BF16), promoted(2, 1)),
        (full(128, DType::BF16), config(6, 3)),
        (full(128, DType::BF16), promoted(6, 2)),
        (full(64, DType::BF16), config(8, 3)),
        (full(64, DType::F32), config(8, 2)),
        (full(64, DType::BF16), pairs(promoted(8, 3))),
        (full(256, DType::F32), promoted(2, 1)),
    ]
}

/// The unit of such an attention.
pub fn unit((attention, config): &(Prefill, PrefillConfig)) -> Unit {
    attention.unit(*config, String::new()).unwrap()
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

/// The products of a tile: of keys, 32 channels each; and of values, 32 keys each and a panel of channels, with eight rows
/// behind the last.
fn products(attention: &Prefill) -> [Vec<String>; 2] {
    let product = |columns: usize| format!("QGMMA.64x{columns}x32.F32.E4M3.E4M3");
    let wide = attention.wide();
    let panels = [128].repeat((wide - 1) / 128 * 4);
    let last = [wide.min(128) + 8].repeat(4);
    let of_values = [panels, last].concat();
    [vec![product(128); wide / 32], of_values.into_iter().map(product).collect()]
}

/// Compilers make products wait for each other where they find their registers used: each would have its own `ARRIVE`. Panels
/// that are promoted one after the other have theirs.
#[test]
fn products_of_keys_and_of_values_make_groups_and_none_waits_for_another() {
    for_each(|name, (attention, config), _, sass| {
        let [keys, values] = products(attention);
        // Values' products have the one of ones once for each 32 keys, keys' never.
        let of_values = count(sass, values.last().unwrap()) / 4;
        let of_keys = (count(sass, "QGMMA") - of_values * values.len()) / keys.len();
        assert_eq!(count(sass, "QGMMA"), of_keys * keys.len() + of_values * values.len(), "{name}");
        let panels = if config.in_flight == 1 { values.len() / 4 } else { 1 };
        assert_eq!(count(sass, "WARPGROUP.ARRIVE"), of_keys + panels * of_values, "{name}");
    });
}

/// Products, waits for them, and what of the softmax is between: runs of the same, with how many there are.
fn order<'a>(body: &[&'a str]) -> Vec<(&'a str, usize)> {
    let is_known =
        |m: &&&str| ["QGMMA", "WARPGROUP.DEPBAR", "MUFU.EX2"].iter().any(|kind| m.starts_with(kind));
    let mut runs: Vec<(&str, usize)> = vec![];
    for kind in body.iter().filter(is_known) {
        match runs.last_mut() {
            Some((last, count)) if last == kind && !kind.starts_with("QGMMA") => *count += 1,
            _ => runs.push((kind, 1)),
        }
    }
    runs
}

/// While the softmax of a tile runs, products of the tiles around it do: what is waited for last is asked for before.
#[test]
fn softmax_runs_while_products_do() {
    for_each(|name, (attention, config), _, sass| {
        let [keys, values] = products(attention);
        if config.in_flight == 1 {
            return;
        }
        let (steps, asked) = match config.in_flight {
            3 => (2, [values, keys].concat()),
            _ => (1, [keys, values].concat()),
        };
        let body = product_loop(sass, steps * asked.len());
        let runs = order(&body);
        // A loop may begin anywhere in a step: behind what it begins with.
        let first = runs.iter().position(|(kind, _)| kind.starts_with("QGMMA")).unwrap();
        let runs = [&runs[first..], &runs[..first]].concat();
        let mut rest = &runs[..];
        for _ in 0..steps {
            let (found, behind) = rest.split_at(asked.len());
            assert!(found.iter().map(|(kind, _)| kind).eq(&asked), "{name}: {runs:?}");
            let [wait, softmax, last] = &behind[..3] else { unreachable!() };
            let waits = [wait.0, last.0].iter().all(|kind| kind.starts_with("WARPGROUP.DEPBAR"));
            assert!(waits && wait.1 == 1 && last.1 == 1, "{name}: {runs:?}");
            // A power for each score; those of sums that are promoted may be a step late.
            assert!(matches!(softmax, ("MUFU.EX2", 64..=68)), "{name}: {runs:?}");
            let next = behind.iter().position(|(kind, _)| kind.starts_with("QGMMA"));
            rest = &behind[next.unwrap_or(behind.len())..];
        }
        assert!(rest.is_empty(), "{name}: {runs:?}");
        work_of_a_tile(name, (attention, config), &body, steps);
    });
}

/// A panel's products follow the softmax, and are waited for before the next panel's are.
#[test]
fn panels_of_a_tile_follow_one_another() {
    for_each(|name, case, _, sass| {
        if case.1.in_flight != 1 {
            return;
        }
        let [keys, values] = products(&case.0);
        let body = product_loop(sass, keys.len() + values.len());
        let kinds = ["QGMMA", "WARPGROUP.DEPBAR", "MUFU.EX2"];
        let mut runs: Vec<&str> =
            body.iter().filter_map(|m| kinds.into_iter().find(|kind| m.starts_with(kind))).collect();
        runs.dedup();
        let panels = ["QGMMA", "WARPGROUP.DEPBAR"].repeat(values.len() / 4);
        assert_eq!(runs, [&["QGMMA", "WARPGROUP.DEPBAR", "MUFU.EX2"], &panels[..]].concat(), "{name}");
        work_of_a_tile(name, (&case.0, &case.1), &body, 1);
    });
}

/// What the body of a loop over so many tiles has beside products.
fn work_of_a_tile(name: &str, (attention, config): (&Prefill, &PrefillConfig), body: &[&str], steps: usize) {
    let inside = |kind: &str| body.iter().filter(|m| m.starts_with(kind)).count() / steps;
    let each = "one for each score, and what sums of two rows are rescaled by";
    assert_eq!(inside("MUFU"), 64 + 2, "{name}: {each}");
    // Keys and values are each let go of in the peer, too, whose address takes one.
    let released = if config.cluster > 1 { 2 } else { 0 };
    assert_eq!(
        [inside("F2FP"), inside("PRMT")],
        [32, 16 + released],
        "{name}: two probabilities each, and four"
    );
    for none in ["LDG", "LDS", "STS", "I2F", "F2I", "LDL", "STL"] {
        assert_eq!(inside(none), 0, "{name}: {none}");
    }
    // Comparisons and choices of a mask, scores that are kept while values arrive, and sums times another factor.
    let rescaled = if config.promotes { 0 } else { attention.wide() / 2 + 4 };
    let rare = 2 * 64 + 64 + rescaled;
    let issued = body.len() / steps - rare;
    eprintln!("{name:36} a tile: {issued} instructions");
    assert!(issued <= tile_instructions(attention, config), "{name}: {issued}");
}

#[test]
fn outputs_go_out_in_16_bytes() {
    for_each(|name, (attention, _), _, sass| {
        let bytes = attention.head * attention.output.bits() / 8;
        let stores = 2 * bytes.div_ceil(4 * 16);
        assert_eq!([count(sass, "STG.E.128"), count(sass, "STG")], [stores; 2], "{name}");
    });
}

/// A tile is copied in as many instructions as it has boxes: panels of keys, and values.
#[test]
fn pairs_copy_keys_and_values_to_both_and_queries_to_themselves() {
    for_each(|name, (attention, config), _, sass| {
        let panels = attention.wide().div_ceil(128);
        let all = count(sass, "UTMALDG.3D");
        let shared = count(sass, "UTMALDG.3D.MULTICAST");
        let tiles = (all - panels) / (panels + 1);
        assert_eq!(all, panels + tiles * (panels + 1), "{name}");
        assert_eq!(shared, if config.cluster == 2 { all - panels } else { 0 }, "{name}");
        assert!(tiles > 0, "{name}");
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
