//! `fireq export`: checkpoints that others read have the numbers of the graph they were made of.

#![cfg(feature = "llvm")]

mod mixed;
mod numbers;
mod packed;
mod python;
mod refused;
mod smoothed;
#[path = "../tiny/mod.rs"]
mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{Stored, Tensors, fireq};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/tinystories-3m");

/// A directory for what a test writes.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().into()
    }

    /// A tiny model, changed, and what it is called.
    fn model(&self, change: impl FnOnce(&mut Value, &mut Tensors)) -> String {
        let (mut config, mut tensors) = (tiny::config(), tiny::tensors());
        change(&mut config, &mut tensors);
        tiny::write(&self.path("model"), &config, &tensors);
        self.text("model")
    }

    /// A tiny model with a tokenizer of one word for each token, and options to calibrate on a text.
    fn calibrated(&self) -> (String, [String; 4]) {
        let model = self.model(|_, _| ());
        let words: Vec<String> = (0..90).map(|n| format!("w{}", n * n * 7 % 31)).collect();
        fs::write(self.path("text"), words.join(" ")).unwrap();
        let vocab: BTreeMap<String, usize> = (0..32).map(|n| (format!("w{n}"), n)).collect();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
        });
        fs::write(self.path("model/tokenizer.json"), tokenizer.to_string()).unwrap();
        let text = self.text("text");
        (model, ["--calib".into(), text, "--calib-tokens".into(), "64".into()])
    }

    /// Exports to `out`, and returns what is printed.
    #[track_caller]
    fn export(&self, model: &str, format: &str, out: &str, args: &[&str]) -> String {
        succeed(&[&["export", model, "--format", format, "-o", &self.text(out)], args].concat())
    }

    #[track_caller]
    fn compile(&self, model: &str, out: &str, passes: &str, args: &[&str]) -> String {
        succeed(&[&["compile", model, "--passes", passes, "-o", &self.text(out)], args].concat());
        self.text(out)
    }

    #[track_caller]
    fn logits(&self, model: &str) -> Vec<f32> {
        let out = self.text("logits.safetensors");
        succeed(&["logits", model, "--tokens", "3,1,4,1,5,9,2,6", "-o", &out]);
        floats(&tensors(Path::new(&out))["logits"])
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap()
    }

    /// The tensors of a checkpoint of one file.
    fn tensors(&self, checkpoint: &str) -> Tensors {
        tensors(&self.path(checkpoint).join("model.safetensors"))
    }
}

#[track_caller]
fn succeed(args: &[&str]) -> String {
    let result = fireq(args);
    assert!(result.status.success(), "{args:?}: {}", String::from_utf8_lossy(&result.stderr));
    String::from_utf8(result.stdout).unwrap()
}

/// What a refusal says.
#[track_caller]
fn refuse(args: &[&str]) -> String {
    let result = fireq(args);
    assert_eq!(result.status.code(), Some(1), "{args:?}");
    assert!(result.stdout.is_empty(), "nothing on stdout");
    String::from_utf8(result.stderr).unwrap()
}

fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = |view: safetensors::tensor::TensorView<'_>| Stored {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect()
}

fn floats(tensor: &Stored) -> Vec<f32> {
    match tensor.dtype {
        safetensors::Dtype::F32 => {
            tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        safetensors::Dtype::BF16 => {
            let bits = tensor.bytes.chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap()));
            bits.map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()
        }
        other => panic!("{other} is no float"),
    }
}

/// Every file of a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |entry: fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(dir).unwrap().map(|e| entry(e.unwrap())).collect()
}
