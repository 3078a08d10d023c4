//! Files of weights: one, or an index and what it names.

use std::fs;

use fireq::import::{Checkpoint, StoredTensor};
use fireq_ir::DType;

use super::{files, scratch, show};

/// A tensor of this name lies outside the model's folder.
const OUTSIDE: &str = "outside";

/// `model.safetensors`; or, where it begins with `{`, an index, and the file `one.safetensors`. What opens has tensors whose
/// bytes are as many as dtype and shape say, all of which can be read.
pub fn checkpoint(bytes: &[u8]) {
    let [index, one] = files(bytes);
    let dir = if bytes.first() == Some(&b'{') {
        scratch::folder(
            "checkpoint/model",
            &[("model.safetensors.index.json", index), ("one.safetensors", one)],
        )
    } else {
        scratch::folder("checkpoint/model", &[("model.safetensors", bytes)])
    };
    let outside = dir.with_file_name("outside.safetensors");
    if !outside.exists() {
        fs::write(&outside, stored(OUTSIDE)).expect("the scratch folder can be written");
    }
    match Checkpoint::open(&dir) {
        Ok(checkpoint) => {
            assert!(!checkpoint.tensors.contains_key(OUTSIDE), "a shard outside the folder was opened");
            checkpoint.tensors.values().for_each(read);
        }
        Err(error) => show(&error),
    }
}

/// A safetensors file with one byte, of this name.
fn stored(name: &str) -> Vec<u8> {
    let header = format!("{{\"{name}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[7]].concat()
}

fn read(tensor: &StoredTensor) {
    let data = tensor.data();
    let bytes = data.bytes().expect("the range lies inside the file").len();
    let bits = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize();
    assert_eq!(bytes * 8, bits, "as many bytes as dtype and shape say");
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::I32] {
        let numbers = data.numbers(dtype);
        let finite = data.first_non_finite(dtype);
        assert!(numbers.is_none_or(|n| finite.is_none_or(|at| !n[at].is_finite())));
    }
    assert!(data.hash().is_some_and(|hash| hash.len() == 16));
    data.release();
    assert_eq!(data.bytes().map(<[u8]>::len), Some(bytes), "what was given back is read again");
}
