//! Tiny models of every family, rope type and odd size, whose logits `tests/models/make_references.py` got from transformers. Their
//! weights are made here, as they were made there.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use fireq::import::{ImportOptions, ModelConfig, stored_layout};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

/// What transformers computes.
pub struct Reference {
    /// The name of its folder.
    pub name: String,
    /// A sequence.
    pub tokens: Vec<u32>,
    /// Logits of its last tokens, row-major.
    pub logits: Vec<f32>,
    /// The context to import for.
    pub context: Option<usize>,
}

impl Reference {
    /// All of them, by name.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names.iter().map(|name| Self::named(name)).collect()
    }

    /// That of a folder.
    pub fn named(name: &str) -> Self {
        let bytes = fs::read(folder().join(name).join("reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |tensor: &str| -> Vec<[u8; 4]> {
            let data = file.tensor(tensor).unwrap().data().to_vec();
            data.chunks_exact(4).map(|b| b.try_into().unwrap()).collect()
        };
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let context = metadata.metadata().as_ref().and_then(|texts| texts.get("context"));
        Reference {
            name: name.into(),
            tokens: words("tokens").into_iter().map(u32::from_le_bytes).collect(),
            logits: words("logits").into_iter().map(f32::from_le_bytes).collect(),
            context: context.map(|n| n.parse().unwrap()),
        }
    }

    /// How the model is imported.
    pub fn options(&self) -> ImportOptions {
        ImportOptions { context: self.context, ..ImportOptions::default() }
    }

    /// Writes the model's directory.
    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::copy(folder().join(&self.name).join("config.json"), dir.join("config.json")).unwrap();
        let layout = stored_layout(&ModelConfig::read(dir).unwrap());
        let data: Vec<_> =
            layout.into_iter().map(|(name, shape)| (weight(&name, &shape), name, shape)).collect();
        let views = data
            .iter()
            .map(|(data, name, shape)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        fs::write(dir.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/references")
}

/// Norms are about 1, biases up to a half, and matrices keep the size of what they multiply.
fn weight(name: &str, shape: &[usize]) -> Vec<u8> {
    let (offset, factor) = match shape {
        [_, cols] => (0.0, 2f32.powi(1 - (usize::BITS - cols.leading_zeros()) as i32 / 2)),
        _ if name.contains("norm") => (1.0, 0.25),
        _ => (0.0, 0.5),
    };
    let numbers = uniform(name, shape.iter().product());
    numbers.flat_map(|x| (offset + x * factor).to_le_bytes()).collect()
}

/// Numbers of -1 to 1 with 24 bits each: splitmix64 from the FNV-1a hash of a name.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (1..=count as u64).map(move |i| {
        let x = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    })
}
