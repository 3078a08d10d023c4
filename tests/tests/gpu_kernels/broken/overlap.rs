//! Kernels that begin before earlier launches have ended, and do not wait for what those write.

use fireq_kernels::cuda::Linear;
use fireq_kernels::cuda::params::DecodeWeight;

use super::super::device::device;
use super::{broken, codes, product};

const WAIT: &str = "    wait_for_earlier_launches();\n";
const LATER: &str = "    let_later_launches_begin();\n";
const ROW: &str = "    typename Row::Values x;\n    load_row<Row>(p.x + row * Row::COLS, x);\n";

#[test]
fn rows_that_are_read_too_early_or_as_constants_are_caught() {
    if device().is_none() {
        return;
    }
    let right = format!("{WAIT}{LATER}{ROW}");
    codes(&right, &right).unwrap();
    let refused = |wrong: &str, said: &str| {
        let fault = codes(&right, wrong).unwrap_err();
        assert!(fault.contains(said), "{wrong}: {fault}");
    };
    let early = "an earlier launch may still write: this thread has not executed griddepcontrol.wait";
    refused(&format!("{LATER}{ROW}"), early);
    refused(&format!("{ROW}{WAIT}{LATER}"), early);
    refused(&format!("    if (threadIdx.x == 0) {}{LATER}{ROW}", WAIT.trim_start()), early);
    refused(&right.replace("<Row>", "<Row, CONSTANT>"), "ld.global.nc");
}

#[test]
fn products_that_read_tokens_or_their_scales_too_early_are_caught() {
    if device().is_none() {
        return;
    }
    let refused = |right: &str, wrong: &str, said: &str| {
        let fault = product(0, right, wrong).unwrap_err();
        assert!(fault.contains(said) && fault.contains("may still write"), "{wrong}: {fault}");
    };
    let ahead = "            ahead = ask_ahead(memory, records, apart, first, end);\n";
    let waits = format!("{ahead}        {WAIT}");
    assert!(product(0, &waits, &waits).unwrap() < 1e-6);
    refused(&waits, ahead, "a bulk copy");
    refused(&format!("{WAIT}{LATER}    Ring"), &format!("{LATER}    Ring"), "load of");
}

#[test]
fn weights_that_are_decoded_over_others_too_early_are_caught() {
    let Some(mut gpu) = device() else { return };
    let linear = Linear::plain(128, 128, 128);
    let unit = linear.decode_unit("a test".into()).unwrap();
    let records = gpu.put("records", &[0; 2 * (64 * 64 + 64)]);
    let params = DecodeWeight { records, rows: gpu.space("workspace", 128 * 128), steps: 1 };
    let right = format!("{WAIT}{LATER}    Table upper");
    gpu.attempt(&unit, &broken(&unit, &right, &right), 1, &params).unwrap();
    let fault = gpu.attempt(&unit, &broken(&unit, &right, &format!("{LATER}    Table upper")), 1, &params);
    let fault = fault.unwrap_err();
    assert!(fault.contains("store of") && fault.contains("may still write"), "{fault}");
}
