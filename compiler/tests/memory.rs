//! Compiling and exporting take the memory of some rows, whatever the size of a model and of its tensors.

#![cfg(all(feature = "llvm", target_os = "linux"))]

mod tiny;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Sizes of the models: channels inside of the two layers' MLPs.
const SMALL: usize = 96;
const LARGE: usize = 1 << 19;

/// What compiling the large model may take beyond the small one: what one of its six large tensors takes in its file.
const MORE: u64 = 64 << 20;

/// Writes a bf16 model whose weights are zeros, as a file that takes no room.
fn write(dir: &Path, inner: usize) {
    fs::create_dir_all(dir).unwrap();
    let mut config = tiny::config();
    config["intermediate_size"] = json!(inner);
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    for (name, tensor) in tiny::tensors() {
        let shape: Vec<usize> = tensor.shape.iter().map(|n| if *n == SMALL { inner } else { *n }).collect();
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// The most memory that a command took, in bytes.
fn peak(words: &[&str], model: &Path, out: &Path) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    command.args(words).arg(model).arg("-o").arg(out).args(["--threads", "4"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = kib.map_or(peak, |kib: u64| kib << 10);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success() && peak > 0);
            return peak;
        }
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_large_model_takes_no_more_than_a_small_one() {
    let commands: [&[&str]; 3] = [
        &["compile"],
        &["export", "--format", "compressed-tensors"],
        &["export", "--format", "safetensors-bf16"],
    ];
    for words in commands {
        let temp = TempDir::new().unwrap();
        let [small, large] = [("small", SMALL), ("large", LARGE)].map(|(name, inner)| {
            let model = temp.path().join(name);
            write(&model, inner);
            peak(words, &model, &temp.path().join(format!("{name}.out")))
        });
        let more = large.saturating_sub(small);
        assert!(more < MORE, "{words:?}: {} MiB beside {} MiB", large >> 20, small >> 20);
        println!("{words:?}: {} MiB beside {} MiB", large >> 20, small >> 20);
    }
}
