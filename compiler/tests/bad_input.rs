//! Bad weight files and arguments are refused: exit code 1, one clear message, a hint, and no output.

mod tiny;

use std::fs;
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::{refused, refused_file, refused_tensors};

/// Replaces the JSON header of a safetensors file.
fn edit_header(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Value)) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = header.to_string();
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend(header.as_bytes());
    edited.extend(&bytes[8 + length..]);
    *bytes = edited;
}

#[test]
fn the_model_itself_is_fine() {
    let temp = TempDir::new().unwrap();
    let (dir, out) = (temp.path().join("model"), temp.path().join("out.safetensors"));
    tiny::write(&dir, &tiny::config(), &tiny::tensors());
    let args =
        ["logits", dir.to_str().unwrap(), "--interpret", "--tokens", "1,2,3", "-o", out.to_str().unwrap()];
    let result = tiny::fireq(&args);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let bytes = fs::read(out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    assert_eq!((logits.dtype(), logits.shape()), (Dtype::F32, &[3, 32][..]));
    assert!(logits.data().chunks_exact(4).all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite()));
}

#[test]
fn a_truncated_file() {
    refused_file(
        |bytes| bytes.truncate(bytes.len() - 10),
        "error: `{dir}/model.safetensors`: the file has 265510 bytes, its header claims another number: it was cut off or has trailing data\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn a_file_cut_inside_its_header() {
    refused_file(
        |bytes| bytes.truncate(100),
        "error: `{dir}/model.safetensors`: the file is truncated: its header is longer than its 100 bytes\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn an_empty_file() {
    refused_file(
        Vec::clear,
        "error: `{dir}/model.safetensors`: the file is truncated: 0 bytes hold no header\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn a_header_length_of_many_exabytes() {
    refused_file(
        |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()),
        "error: `{dir}/model.safetensors`: the file claims a header of more than 100 MB\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn a_header_that_is_not_json() {
    refused_file(
        |bytes| bytes[8] = b'x',
        "error: `{dir}/model.safetensors`: the header is broken: invalid JSON in header: expected value at line 1 column 1\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn a_tensor_that_claims_more_than_the_file() {
    let claim = |header: &mut Value| {
        let last = header.as_object_mut().unwrap().values_mut().max_by_key(|t| t["data_offsets"][1].as_u64());
        let last = last.unwrap();
        let begin = last["data_offsets"][0].as_u64().unwrap();
        last["shape"] = json!([1u64 << 40]);
        last["data_offsets"] = json!([begin, begin + (4 << 40)]);
    };
    refused_file(
        |bytes| edit_header(bytes, claim),
        "error: `{dir}/model.safetensors`: the file has 265531 bytes, its header claims another number: it was cut off or has trailing data\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn a_tensor_whose_size_overflows() {
    let claim = |header: &mut Value| {
        header["model.norm.weight"]["shape"] = json!([u64::MAX, u64::MAX]);
    };
    refused_file(
        |bytes| edit_header(bytes, claim),
        "error: `{dir}/model.safetensors`: a tensor claims an impossible size\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn overlapping_tensors() {
    let overlap = |header: &mut Value| {
        let offsets = &mut header["model.norm.weight"]["data_offsets"];
        let (begin, end) = (offsets[0].as_u64().unwrap(), offsets[1].as_u64().unwrap());
        *offsets = json!([begin - 128, end - 128]);
    };
    refused_file(
        |bytes| edit_header(bytes, overlap),
        "error: `{dir}/model.safetensors`: tensor `model.norm.weight` overlaps another or leaves a hole before it\n  \
         help: download the file again; it was cut off or altered",
    );
}

#[test]
fn a_missing_tensor() {
    refused_tensors(
        |t| drop(t.remove("model.layers.1.mlp.up_proj.weight")),
        "error: the checkpoint lacks tensor `model.layers.1.mlp.up_proj.weight`\n  \
         help: config.json and the weights belong to different models, or a shard is missing",
    );
}

#[test]
fn a_missing_output_projection() {
    refused_tensors(
        |t| drop(t.remove("lm_head.weight")),
        "error: the checkpoint lacks tensor `lm_head.weight`\n  \
         help: if the model uses its embedding as output, set tie_word_embeddings to true in config.json",
    );
}

#[test]
fn extra_tensors() {
    let add = |t: &mut tiny::Tensors| {
        for name in ["a", "b", "c", "d"] {
            t.insert(format!("model.layers.0.self_attn.{name}"), tiny::random(1, &[4]));
        }
    };
    refused_tensors(
        add,
        "error: the checkpoint has unknown tensors `model.layers.0.self_attn.a`, `model.layers.0.self_attn.b`, `model.layers.0.self_attn.c` and 1 more\n  \
         help: config.json does not describe these weights: compiling without them would give wrong text",
    );
}

#[test]
fn a_misshapen_tensor() {
    refused_tensors(
        |t| drop(t.insert("model.norm.weight".into(), tiny::random(1, &[63]))),
        "error: tensor `model.norm.weight` has shape [63], config.json implies [64]\n  \
         help: config.json and the weights belong to different models",
    );
}

#[test]
fn a_tensor_of_another_dtype() {
    let integers = |t: &mut tiny::Tensors| {
        t.get_mut("model.norm.weight").unwrap().dtype = Dtype::I32;
    };
    refused_tensors(
        integers,
        "error: tensor `model.norm.weight` has dtype I32, which is not read\n  \
         help: fireq compiles checkpoints of F32, F16 and BF16",
    );
}

#[test]
fn a_nan_weight() {
    let spoil = |t: &mut tiny::Tensors| {
        let bytes = &mut t.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().bytes;
        bytes[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    refused_tensors(
        spoil,
        "error: `const`: `model.layers.1.mlp.up_proj.weight`: element 100 is NaN; weights must be finite\n  \
         help: the weights may be damaged: download the model again",
    );
}

#[test]
fn an_infinite_weight() {
    let spoil = |t: &mut tiny::Tensors| {
        let bytes = &mut t.get_mut("model.norm.weight").unwrap().bytes;
        bytes[..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    };
    refused_tensors(
        spoil,
        "error: `const`: `model.norm.weight`: element 0 is -inf; weights must be finite\n  \
         help: the weights may be damaged: download the model again",
    );
}

/// Turns the model into a sharded one whose index is `index`.
fn shard(dir: &Path, index: &Value) {
    fs::rename(dir.join("model.safetensors"), dir.join("one.safetensors")).unwrap();
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn an_index_that_leaves_the_directory() {
    for name in ["../one.safetensors", "/etc/passwd", "..", "a/b", "a\\b", ""] {
        let expected = format!(
            "error: `{{dir}}/model.safetensors.index.json`: the shard `{}` is outside the model directory\n  \
             help: shards are plain file names; do not trust this checkpoint",
            name.escape_debug()
        );
        refused(|dir| shard(dir, &json!({ "weight_map": { "model.norm.weight": name } })), &expected);
    }
}

#[test]
fn an_index_of_shards_that_are_not_there() {
    refused(
        |dir| shard(dir, &json!({ "weight_map": { "model.norm.weight": "two.safetensors" } })),
        "error: cannot read `{dir}/two.safetensors`\n  \
         cause: No such file or directory (os error 2)\n  \
         help: a model is a directory with config.json and *.safetensors files",
    );
}

#[test]
fn an_index_that_misplaces_a_tensor() {
    refused(
        |dir| shard(dir, &json!({ "weight_map": { "nothing": "one.safetensors" } })),
        "error: `{dir}/model.safetensors.index.json`: tensor `nothing` is not in `one.safetensors`, where the index puts it\n  \
         help: download the shards and their index again",
    );
}

#[test]
fn a_directory_without_weights() {
    refused(
        |dir| fs::remove_file(dir.join("model.safetensors")).unwrap(),
        "error: `{dir}`: there is neither model.safetensors nor model.safetensors.index.json\n  \
         help: fireq reads safetensors; with only pytorch_model.bin, load the model in transformers and save it with save_pretrained(dir, safe_serialization=True)",
    );
}

#[test]
fn a_directory_of_gguf() {
    refused(
        |dir| fs::rename(dir.join("model.safetensors"), dir.join("model-q4_0.gguf")).unwrap(),
        "error: `{dir}`: there is GGUF, which is not read, and no safetensors\n  \
         help: compile the checkpoint that the GGUF file was made from; or load it in transformers (from_pretrained(DIR, gguf_file=FILE)) and save it with save_pretrained",
    );
}

/// Arguments after the model directory, and what is refused.
#[track_caller]
fn refused_arguments(args: &[&str], expected: &str) {
    let temp = TempDir::new().unwrap();
    let (dir, out) = (temp.path().join("model"), temp.path().join("out.safetensors"));
    tiny::write(&dir, &tiny::config(), &tiny::tensors());
    let fixed = ["logits", dir.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let result = tiny::fireq(&[&fixed, args].concat());
    assert_eq!(String::from_utf8_lossy(&result.stderr).trim_end(), expected);
    assert_eq!(result.status.code(), Some(1));
    assert!(!out.exists());
}

#[test]
fn a_token_outside_the_vocabulary() {
    refused_arguments(
        &["--interpret", "--tokens", "1,32"],
        "error: token 32 is outside the vocabulary of 32\n  \
         help: token ids count from 0; use the model's own tokenizer",
    );
}

#[test]
fn a_usage_error_has_exit_code_2() {
    let result = tiny::fireq(&["logits"]);
    assert_eq!(result.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&result.stderr).contains("Usage: fireq logits"));
}
