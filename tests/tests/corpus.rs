//! The corpus of the fuzz targets, once more without a fuzzer: what was found stays found.

use std::fs;
use std::path::Path;

use fireq_tests::untrusted;

fn replay(target: &str, check: fn(&str)) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
    let texts: Vec<Vec<u8>> = entries.map(|path| fs::read(path).unwrap()).collect();
    assert!(!texts.is_empty(), "{} is empty", dir.display());
    texts.iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()).for_each(check);
}

#[test]
fn text_ir() {
    replay("text_ir", untrusted::text_ir);
}

#[test]
fn pipelines() {
    replay("pipeline", untrusted::pipeline);
}

#[test]
fn plans() {
    replay("plan", untrusted::plan);
}
