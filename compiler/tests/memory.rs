//! Compiling and exporting take the memory of some rows, whatever the size of a model and of its tensors.

#![cfg(all(feature = "llvm", target_os = "linux"))]

mod tiny;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
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

/// How the linears of a model are packed.
#[derive(Clone, Copy)]
enum Packed {
    /// GPTQ, with zero points: numbers.
    Zeros,
    /// compressed-tensors, without: codes that stay.
    Codes,
}

impl Packed {
    fn config(self) -> Value {
        match self {
            Packed::Zeros => json!({ "quant_method": "gptq", "bits": 4, "group_size": 32 }),
            Packed::Codes => json!({
                "quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": { "group_0": {
                    "weights": { "num_bits": 4, "type": "int", "strategy": "group", "group_size": 32 },
                } },
            }),
        }
    }

    /// The tensors of a linear of these sizes: suffix, dtype, shape, bytes.
    fn tensors(self, rows: usize, cols: usize) -> Vec<(&'static str, &'static str, Vec<usize>, usize)> {
        let groups = cols / 32;
        let sized = |(suffix, dtype, shape): (_, &'static str, Vec<usize>)| {
            let bytes = shape.iter().product::<usize>() * if dtype == "I32" { 4 } else { 2 };
            (suffix, dtype, shape, bytes)
        };
        let all = match self {
            Packed::Zeros => vec![
                ("qweight", "I32", vec![cols / 8, rows]),
                ("qzeros", "I32", vec![groups, rows / 8]),
                ("scales", "F16", vec![groups, rows]),
            ],
            Packed::Codes => vec![
                ("weight_packed", "I32", vec![rows, cols / 8]),
                ("weight_scale", "BF16", vec![rows, groups]),
            ],
        };
        all.into_iter().map(sized).collect()
    }
}

/// Writes a model whose linears are packed zeros, as a file that takes no room.
fn write_packed(dir: &Path, inner: usize, packed: Packed) {
    fs::create_dir_all(dir).unwrap();
    let mut config = tiny::config();
    config["intermediate_size"] = json!(inner);
    config["quantization_config"] = packed.config();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    let mut add = |name: String, dtype: &str, shape: Vec<usize>, bytes: usize| {
        let start = end;
        end += bytes;
        header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
        end
    };
    let mut all = 0;
    let mut shapes = vec![];
    for (name, tensor) in tiny::tensors() {
        let shape: Vec<usize> = tensor.shape.iter().map(|n| if *n == SMALL { inner } else { *n }).collect();
        let Some(base) = name.strip_suffix(".weight").filter(|base| base.ends_with("_proj")) else {
            all = add(name, "BF16", shape.clone(), 2 * shape.iter().product::<usize>());
            continue;
        };
        for (suffix, dtype, shape, bytes) in packed.tensors(shape[0], shape[1]) {
            all = add(format!("{base}.{suffix}"), dtype, shape, bytes);
        }
        shapes.push((format!("{base}.weight_shape"), [shape[0], shape[1]]));
    }
    // Of all tensors the only ones that are no zeros.
    let shapes = if matches!(packed, Packed::Codes) { shapes } else { vec![] };
    let ends: Vec<usize> = shapes.iter().map(|(name, _)| add(name.clone(), "I64", vec![2], 16)).collect();
    let header = Value::Object(header).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let data = 8 + header.len();
    file.set_len((data + ends.last().copied().unwrap_or(all)) as u64).unwrap();
    for ((_, sides), end) in shapes.iter().zip(ends) {
        let bytes: Vec<u8> = sides.iter().flat_map(|n| (*n as i64).to_le_bytes()).collect();
        file.write_all_at(&bytes, (data + end - 16) as u64).unwrap();
    }
}

/// Rows of packed weights are made of all pages of their tensors, so that each of four threads may have those of one in memory,
/// 19 MiB, and what was mapped along with them. One of them as numbers in f32 is 128 MiB.
const MORE_PACKED: u64 = 112 << 20;

#[test]
fn packed_weights_are_never_decoded_as_a_whole() {
    for packed in [Packed::Zeros, Packed::Codes] {
        let temp = TempDir::new().unwrap();
        let [small, large] = [("small", SMALL), ("large", LARGE)].map(|(name, inner)| {
            let model = temp.path().join(name);
            write_packed(&model, inner, packed);
            peak(&["compile"], &model, &temp.path().join("out.fireq"))
        });
        let more = large.saturating_sub(small);
        assert!(more < MORE_PACKED, "{} MiB beside {} MiB", large >> 20, small >> 20);
    }
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
