//! What leads out of a model, or is larger than any model has it, is refused in no time and with a reason.

#![cfg(unix)]

mod tiny;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use fireq::compile::kept_files;
use fireq::import::{Checkpoint, ImportError, ModelConfig};
use fireq::tokens::Tokens;
use tempfile::TempDir;

/// An error and its causes, in a line.
fn said(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// Two folders beside each other, the first of which is a model.
fn folders() -> (TempDir, PathBuf, PathBuf) {
    let temp = TempDir::new().unwrap();
    let [model, other] = ["model", "other"].map(|name| temp.path().join(name));
    tiny::write(&model, &tiny::config(), &tiny::tensors());
    fs::create_dir(&other).unwrap();
    (temp, model, other)
}

/// A file without content that is as large as it says.
fn claims(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_cache_of_downloads_consists_of_links() {
    let (temp, model, _) = folders();
    let [blobs, snapshot] =
        ["blobs", "snapshots/0123"].map(|name| temp.path().join("models--a--b").join(name));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(model.join("tokenizer.json"), "{}").unwrap();
    for (n, name) in ["config.json", "model.safetensors", "tokenizer.json"].iter().enumerate() {
        fs::rename(model.join(name), blobs.join(n.to_string())).unwrap();
        symlink(format!("../../blobs/{n}"), snapshot.join(name)).unwrap();
    }
    assert_eq!(
        kept_files(&snapshot).unwrap(),
        ["config.json", "tokenizer.json"].map(|name| snapshot.join(name))
    );
    let model = fireq::import::import(&snapshot).unwrap();
    assert_eq!(model.config.layers, 2);
}

#[test]
fn what_is_copied_into_an_artifact_is_the_models_own() {
    let (temp, model, other) = folders();
    fs::write(other.join("secret"), "{}").unwrap();
    let link = model.join("tokenizer_config.json");
    symlink(other.join("secret"), &link).unwrap();
    let error = kept_files(&model).unwrap_err().to_string();
    assert_eq!(error, format!("`{}` is a link that leads out of the model", link.display()));
    let out = temp.path().join("out.fireq");
    let result =
        tiny::fireq(&["compile", model.to_str().unwrap(), "-o", out.to_str().unwrap(), "--recipe", "rtn"]);
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert!(
        stderr.contains("leads out of the model") && stderr.contains("help: look at what it leads to"),
        "{stderr}"
    );
    assert_eq!(result.status.code(), Some(1));
    assert!(!out.exists());
    fs::remove_file(&link).unwrap();
    fs::write(model.join("tokens"), "{}").unwrap();
    symlink("tokens", &link).unwrap();
    assert_eq!(kept_files(&model).unwrap(), [model.join("config.json"), link]);
}

#[test]
fn names_in_an_index_are_those_of_files_beside_it() {
    let (_temp, model, other) = folders();
    fs::rename(model.join("model.safetensors"), model.join("one.safetensors")).unwrap();
    fs::copy(model.join("one.safetensors"), other.join("one.safetensors")).unwrap();
    let index = |map: &str| {
        fs::write(model.join("model.safetensors.index.json"), format!("{{\"weight_map\":{{{map}}}}}"))
            .unwrap();
        Checkpoint::open(&model)
    };
    let long = "x".repeat(300);
    for name in
        ["../other/one.safetensors", "/etc/passwd", "a/../../b", "..\\\\x", "C:x", "\\u0000", ".", ".."]
    {
        let error = index(&format!("\"model.norm.weight\":\"{name}\"")).unwrap_err();
        assert!(error.to_string().contains("is outside the model directory"), "{name}: {error}");
    }
    for name in ["ONE.safetensors", "two.safetensors", &long] {
        let error = index(&format!("\"model.norm.weight\":\"{name}\"")).unwrap_err();
        assert!(matches!(error, ImportError::Read { .. }), "{name}: {error}");
    }
    // Of a name that is there twice the last counts, and is checked as if it were alone.
    let twice =
        "\"model.norm.weight\":\"one.safetensors\",\"model.norm.weight\":\"../other/one.safetensors\"";
    assert!(index(twice).unwrap_err().to_string().contains("is outside the model directory"));
    index("\"model.norm.weight\":\"one.safetensors\"").unwrap();
    fs::create_dir(model.join("two.safetensors")).unwrap();
    fifo(&model.join("three.safetensors"));
    for name in ["two", "three"] {
        let error = index(&format!("\"model.norm.weight\":\"{name}.safetensors\"")).unwrap_err();
        assert!(said(&error).ends_with("it is not a regular file"), "{}", said(&error));
    }
}

#[test]
fn files_that_never_end_or_are_too_large_are_not_read() {
    let (_temp, model, _) = folders();
    for name in ["config.json", "generation_config.json"] {
        let path = model.join(name);
        let own = fs::read(&path).ok();
        claims(&path, 1 << 33);
        let error = ModelConfig::read(&model).unwrap_err();
        assert!(said(&error).ends_with("it has more than 64 MiB"), "{}", said(&error));
        fs::remove_file(&path).unwrap();
        fifo(&path);
        assert!(said(&ModelConfig::read(&model).unwrap_err()).ends_with("it is not a regular file"));
        fs::remove_file(&path).unwrap();
        if let Some(own) = own {
            fs::write(&path, own).unwrap();
        }
    }
    ModelConfig::read(&model).unwrap();
    claims(&model.join("tokenizer.json"), 500 << 20);
    let error = Tokens::load(&model, None).unwrap_err().to_string();
    assert!(error.ends_with("tokenizer.json`: it has more than 64 MiB"), "{error}");
    fs::rename(model.join("model.safetensors"), model.join("one.safetensors")).unwrap();
    claims(&model.join("model.safetensors.index.json"), 1 << 33);
    assert!(said(&Checkpoint::open(&model).unwrap_err()).ends_with("it has more than 64 MiB"));
}

#[test]
fn headers_and_texts_that_claim_or_nest_much_are_refused_at_once() {
    let (_temp, model, _) = folders();
    let weights = model.join("model.safetensors");
    claims(&weights, 200_000_000);
    for (length, reason) in [(100_000_000u64, "the header is broken"), (100_000_001, "more than 100 MB")] {
        let file = File::options().write(true).open(&weights).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &length.to_le_bytes(), 0).unwrap();
        let error = Checkpoint::open(&model).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let nested = ["[".repeat(1_000_000), "{\"rope_scaling\":".repeat(100_000)];
    for text in nested {
        fs::write(model.join("config.json"), &text).unwrap();
        let error = said(&ModelConfig::read(&model).unwrap_err());
        assert!(error.contains("recursion limit") || error.contains("invalid type"), "{error}");
        fs::write(model.join("tokenizer.json"), &text).unwrap();
        let error = Tokens::load(&model, None).unwrap_err().to_string();
        assert!(error.contains("cannot load"), "{error}");
    }
    let mut config = tiny::config();
    config["num_hidden_layers"] = (1 << 20).into();
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    let error = ModelConfig::read(&model).unwrap_err().to_string();
    assert!(error.ends_with("`num_hidden_layers` is 1048576"), "{error}");
}

#[test]
fn an_index_of_a_million_tensors_is_read_and_found_wanting() {
    let (_temp, model, _) = folders();
    fs::rename(model.join("model.safetensors"), model.join("one.safetensors")).unwrap();
    let entries: Vec<String> = (0..1_000_000).map(|n| format!("\"w{n}\":\"one.safetensors\"")).collect();
    let index = format!("{{\"weight_map\":{{{}}}}}", entries.join(","));
    fs::write(model.join("model.safetensors.index.json"), index).unwrap();
    let error = Checkpoint::open(&model).unwrap_err().to_string();
    assert!(error.contains("tensor `w0` is not in `one.safetensors`"), "{error}");
}

/// A tokenizer of two letters, with what `more` says.
fn tokenizer(model: &Path, more: &str) -> Tokens {
    let text = format!(
        r#"{{"version":"1.0","added_tokens":[],"normalizer":null,{more},"post_processor":null,"decoder":null,
        "model":{{"type":"BPE","dropout":null,"unk_token":null,"vocab":{{"a":0,"b":1}},"merges":[]}}}}"#
    );
    fs::write(model.join("tokenizer.json"), text).unwrap();
    Tokens::load(model, None).unwrap()
}

#[test]
fn a_tokenizer_that_its_library_panics_on_is_an_error() {
    let (_temp, model, _) = folders();
    let none = r#""truncation":null,"padding":null,"#;
    let good = tokenizer(&model, &format!(r#"{none}"pre_tokenizer":null"#));
    assert_eq!(good.encode("abba").unwrap(), [0, 1, 1, 0]);
    let nothing = tokenizer(&model, &format!(r#"{none}"pre_tokenizer":{{"type":"FixedLength","length":0}}"#));
    for _ in 0..2 {
        let error = nothing.encode("abba").unwrap_err().to_string();
        assert!(
            error.starts_with("the tokenizer failed: its library cannot cope with it: chunk size"),
            "{error}"
        );
    }
}

#[test]
fn texts_are_neither_cut_nor_padded_to_what_a_tokenizer_claims() {
    let (_temp, model, _) = folders();
    let padding = r#""padding":{"strategy":{"Fixed":18446744073709551615},"direction":"Right","pad_to_multiple_of":0,
        "pad_id":0,"pad_type_id":0,"pad_token":"a"}"#;
    let truncation =
        r#""truncation":{"direction":"Right","max_length":1,"strategy":"LongestFirst","stride":0}"#;
    let claims = tokenizer(&model, &format!(r#"{truncation},{padding},"pre_tokenizer":null"#));
    assert_eq!(claims.encode("abba").unwrap(), [0, 1, 1, 0]);
}
