//! Products with weights that were decoded before: the decoding to the bit, then every tile, schedule and cluster.

use fireq_ir::interp::Data;
use fireq_ir::quant::Quantized;
use fireq_ir::{Format, e4m3};
use fireq_kernels::cuda::{Addend, Linear, params};
use fireq_kernels::records::records;

use super::device::{UNTOUCHED, device};
use super::linear::case;

/// The weight's numbers rn8(q·σ) in the order of a workspace; what is beyond the weight is zero.
fn workspace(linear: &Linear, weight: &Quantized) -> Vec<u8> {
    let [rows, cols] = linear.workspace();
    let mut all: Vec<u8> = (0..linear.channels)
        .flat_map(|row| {
            let mut codes: Vec<u8> = weight.mainloop_row(row).into_iter().map(e4m3::encode).collect();
            codes.resize(cols, 0);
            codes
        })
        .collect();
    all.resize(rows * cols, 0);
    all
}

fn check_decoding(linear: &Linear, weight: &Quantized) {
    let Some(mut gpu) = device() else { return };
    let [rows, cols] = linear.workspace();
    let params = params::DecodeWeight {
        records: gpu.put("records", &records(weight).unwrap()),
        rows: gpu.space("workspace", rows * cols + 64),
        steps: linear.steps() as u32,
    };
    gpu.launch(&linear.decode_unit("a test".into()).unwrap(), 1, 0, &params);
    let found = gpu.bytes(params.rows, rows * cols + 64);
    let want = [workspace(linear, weight), vec![UNTOUCHED; 64]].concat();
    // A product of zero may have either sign.
    let number = |byte: u8| if byte == 0x80 { 0 } else { byte };
    let wrong = found.iter().zip(&want).position(|(found, want)| number(*found) != number(*want));
    assert_eq!(wrong.map(|i| [i / cols, i % cols]), None, "{linear:?}");
}

#[test]
fn weights_are_decoded_to_the_numbers_of_the_contract() {
    for sizes in [[64, 16, 128], [132, 272, 128], [196, 400, 64], [260, 1168, 128]] {
        let (linear, case) = case(sizes, Addend::Nothing, 1);
        let Data::Quant(weight) = case.constant_tensor("w").data else { panic!("the weight is quantized") };
        check_decoding(&linear, &weight);
    }
}

#[test]
fn every_code_is_decoded_under_every_scale() {
    let scales: Vec<f32> = (0..=u8::MAX).map(e4m3::decode).filter(|scale| !scale.is_nan()).collect();
    let (channels, cols) = (scales.len().next_multiple_of(4), 128);
    let scales: Vec<f32> = scales.into_iter().chain([1.0, 2.0]).collect();
    let weight = Quantized {
        format: Format::weight(128),
        cols,
        codes: (0..channels * cols).map(|i| ((i + i / 16) % 16) as i8 - 8).collect(),
        scales: vec![scales, vec![1.0; channels]],
    };
    check_decoding(&Linear { channels, cols, group: 128, addend: Addend::Nothing }, &weight);
}
