//! Gates on the machine code for sizes that are no multiples of anything.

use fireq_codegen::cuda::cubin::resources;
use fireq_ir::{DType, Fit};
use fireq_kernels::cuda::cost::registers;
use fireq_kernels::cuda::{
    Addend, DecodeAttention, Linear, LinearConfig, LinearFp8, LinearFp8Config, Output, Prefill,
    PrefillConfig, Qkv, Schedule, Unit, gather_pages, norm_quantize, quantize, sample, swiglu_quantize,
};

use super::machine_code::{count, disassemble};
use super::units::compiled;

/// Units of a model with odd numbers of channels, and of heads of 48, 96 and 100 channels.
pub fn units() -> Vec<Unit> {
    let attention = |head| DecodeAttention { heads: 3, kv_heads: 1, head, page: 64 };
    let heads = [48, 96, 100].into_iter().flat_map(|head| {
        let [k_fit, v_fit] = [Fit::Clipped; 2];
        let qkv = Qkv { q_heads: 3, kv_heads: 1, head, k_fit, v_fit, page: 64 }.unit();
        let prefill = Prefill { heads: 3, kv_heads: 1, head, output: DType::F32, causal: true };
        let prefill = prefill
            .unit(PrefillConfig { stages: 2, in_flight: 3, promotes: false, cluster: 1 }, String::new());
        let of = attention(head);
        [qkv, prefill, of.unit(), of.combine(), gather_pages(of.pages())].map(Result::unwrap)
    });
    let rows = [130, 257].into_iter().flat_map(|cols| {
        [quantize(cols), norm_quantize(cols, DType::BF16), swiglu_quantize(cols)].map(Result::unwrap)
    });
    let samples = [129, 257, 1000, 4096].map(sample);
    let products = products().into_iter().map(|(unit, ..)| unit);
    heads.chain(rows).chain(samples).chain(products).collect()
}

/// Products, with the bytes of a store and the registers that a thread may have.
fn products() -> Vec<(Unit, usize, usize)> {
    let bias = Addend::Bias(DType::BF16);
    let widths =
        [(258, Output::F32, 8), (257, Output::F32, 4), (172, Output::Bf16, 8), (257, Output::Bf16, 2)];
    let linear = |channels, addend, output| Linear { addend, output, ..Linear::plain(channels, 130, 128) };
    let [few, many] =
        [[8, 1, 4, 4, 0], [128, 2, 4, 1, 4]].map(|[tokens, warpgroups, stages, split, promotion]| {
            LinearConfig { tokens, warpgroups, stages, steps: 2, split, cluster: 1, promotion, band: 0 }
        });
    let decoded = |tokens, stages, promotion, schedule| LinearFp8Config {
        tokens,
        stages,
        cluster: 2,
        promotion,
        schedule,
    };
    let in_pairs = [
        (Addend::Residual, decoded(256, 4, 0, Schedule::Together)),
        (Addend::Residual, decoded(192, 5, 4, Schedule::Together)),
        (bias, decoded(192, 6, 4, Schedule::Alternately)),
    ];
    let mut all = vec![];
    for (n, (channels, output, bytes)) in widths.into_iter().enumerate() {
        for (addend, config) in [(Addend::Nothing, few), (Addend::Residual, many)] {
            let unit = linear(channels, addend, output).unit(&config, String::new()).unwrap();
            all.push((unit, bytes, registers(&config, 128)));
        }
        // The narrowest have the most addresses; the others take turns.
        for (_, (addend, config)) in in_pairs.iter().enumerate().filter(|(m, _)| bytes < 8 || *m == n) {
            let linear = LinearFp8::from(linear(channels, *addend, output));
            all.push((linear.unit(config, 132, String::new()).unwrap(), bytes, 168));
        }
    }
    all
}

/// Outputs go out as wide as the addresses of rows allow, in no more registers than 16 bytes at a time.
#[test]
fn outputs_are_written_as_wide_as_rows_allow() {
    let Some(units) = compiled() else { return };
    for (unit, bytes, most) in products() {
        let name = unit.name;
        let (_, compiled) = units.iter().find(|(unit, _)| unit.name == name).unwrap();
        assert!(resources(&compiled.cubin, &name).unwrap().registers as usize <= most, "{name}");
        let Some(sass) = disassemble(&compiled.cubin) else { return };
        let store = match bytes {
            8 => "STG.E.64",
            2 => "STG.E.U16",
            _ => "STG.E",
        };
        let [all, these, wide] = ["STG", store, "STG.E.128"].map(|store| count(&sass, store));
        assert!(
            all > 0 && these == all && wide == 0,
            "{name}: {these} of {all} stores are of {bytes} bytes\n{sass}"
        );
    }
}
