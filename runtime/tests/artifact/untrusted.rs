//! Artifacts that are damaged, forged, or made for something else are refused before any of them is used, and for numbers in
//! weights before there is a result.

use std::fs;

use fireq_ir::artifact::{CPU_LIBRARY, MANIFEST, PLAN, WEIGHTS};
use fireq_runtime::{Artifact, Limits, RuntimeError, Sampling, Select, Session};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

use super::small::{Small, replace, small};

const LIMITS: Limits = Limits { tokens: 4, context: 40, threads: 1 };

fn refusal(small: &Small) -> RuntimeError {
    let error = Artifact::open(&small.dir).expect_err("the artifact is refused");
    assert!(
        !error.to_string().contains('\n')
            || matches!(error, RuntimeError::Plan(_) | RuntimeError::PlanText(_))
    );
    error
}

/// A session's first result.
fn first_result(small: &Small) -> Result<Vec<f32>, RuntimeError> {
    Session::open(&Artifact::open(&small.dir)?, LIMITS)?.forward(&[1], Select::Last)
}

#[track_caller]
fn assert_damaged(error: &RuntimeError, file: &str) {
    assert!(matches!(error, RuntimeError::Hash { file: named } if named == file), "{file}: {error}");
    assert!(error.hint().unwrap().contains("copy the artifact again"));
}

#[test]
fn an_untouched_artifact_opens() {
    let Some(small) = small() else { return };
    let artifact = Artifact::open(&small.dir).unwrap();
    assert_eq!(
        (artifact.manifest.name.as_str(), artifact.manifest.model.vocab),
        ("small", super::small::VOCAB)
    );
}

#[test]
fn a_changed_byte_in_any_file_is_found() {
    let Some(small) = small() else { return };
    let files: Vec<String> = Artifact::open(&small.dir).unwrap().manifest.files.into_keys().collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let path = small.dir.join(&file);
        let original = fs::read(&path).unwrap();
        let mut damaged = original.clone();
        damaged[original.len() / 2] ^= 1;
        for bad in [&damaged[..], &original[..original.len() - 1], &[]] {
            replace(&path, bad).unwrap();
            assert_damaged(&Artifact::describe(&small.dir).unwrap_err(), &file);
            assert_damaged(&first_result(&small).unwrap_err(), &file);
            if file != WEIGHTS || bad.len() < original.len() {
                assert_damaged(&refusal(&small), &file);
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(refusal(&small), RuntimeError::Io { .. }));
        replace(&path, original).unwrap();
    }
    Artifact::open(&small.dir).unwrap();
}

#[test]
fn a_changed_number_in_weights_lets_no_result_out() {
    let Some(small) = small() else { return };
    let path = small.dir.join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    replace(&path, bytes).unwrap();
    let artifact = Artifact::open(&small.dir).unwrap();
    for _ in 0..2 {
        let mut session = Session::open(&artifact, LIMITS).unwrap();
        for select in [Select::Last, Select::All, Select::Last] {
            assert_damaged(&session.forward(&[1, 2, 3, 4, 5], select).unwrap_err(), WEIGHTS);
            assert!(session.is_empty(), "nothing was read");
        }
        assert_damaged(&session.next(&[1], &Sampling::Greedy.draw(0)).unwrap_err(), WEIGHTS);
        assert_damaged(&session.compare(&[1]).unwrap_err(), WEIGHTS);
    }
    assert_damaged(&artifact.weights().unwrap().wait().unwrap_err(), WEIGHTS);
}

/// Whatever becomes of dtypes, shapes and places: what is said is that the file is damaged.
#[test]
fn a_changed_header_of_weights_is_damage() {
    let Some(small) = small() else { return };
    let path = small.dir.join(WEIGHTS);
    let original = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
    for (at, bit) in (0..header).zip((0..8).cycle()) {
        let mut damaged = original.clone();
        damaged[at] ^= 1 << bit;
        replace(&path, damaged).unwrap();
        assert_damaged(&first_result(&small).unwrap_err(), WEIGHTS);
    }
    replace(&path, original).unwrap();
    first_result(&small).unwrap();
}

#[test]
fn another_schema_version_says_what_to_do() {
    let Some(small) = small() else { return };
    let path = small.dir.join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    for (version, hint) in
        [(99, "the version of fireq that wrote it, or a newer one"), (2, "compile the model again")]
    {
        let other = format!("\"schema\": {version}, \"later\": {{}}");
        replace(&path, text.replace("\"schema\": 4", &other)).unwrap();
        let error = refusal(&small);
        let message = format!("schema version {version}; this build reads versions 3 and 4");
        assert!(error.to_string().contains(&message), "{error}");
        assert!(error.hint().unwrap().contains(hint));
    }
}

#[test]
fn another_machine_is_named() {
    let Some(small) = small() else { return };
    small.edit_manifest(|manifest| manifest.target.as_mut().unwrap().features = vec!["avx2000".into()]);
    assert!(refusal(&small).to_string().contains("CPUs with avx2000"));
    small.edit_manifest(|manifest| manifest.target.as_mut().unwrap().arch = "pdp11".into());
    let error = refusal(&small);
    assert!(error.to_string().contains("compiled for pdp11"), "{error}");
    assert!(error.hint().unwrap().contains("--cpu baseline"));
    assert_eq!(Artifact::describe(&small.dir).unwrap().manifest.target.unwrap().arch, "pdp11");
}

#[test]
fn names_that_lead_out_of_the_artifact_are_never_opened() {
    let Some(small) = small() else { return };
    let path = small.dir.join(MANIFEST);
    let original = fs::read_to_string(&path).unwrap();
    for name in ["../secret", "/etc/hostname", "cpu/../../secret", "C:\\\\secret"] {
        replace(&path, original.replace("\"graph.ir\"", &format!("\"{name}\""))).unwrap();
        let error = refusal(&small);
        assert!(error.to_string().contains("leads out of the artifact"), "{name}: {error}");
    }
}

#[test]
fn manifests_that_leave_files_out_or_are_no_manifests_are_refused() {
    let Some(small) = small() else { return };
    for file in [PLAN, WEIGHTS, CPU_LIBRARY] {
        let mut removed = None;
        small.edit_manifest(|manifest| removed = manifest.files.remove_entry(file));
        assert!(matches!(refusal(&small), RuntimeError::Unlisted(name) if name == file));
        small.edit_manifest(|manifest| manifest.files.extend(removed));
    }
    for text in ["", "{", "[]", "{\"schema\": 4}", "{\"schema\": -1}", "\u{0}"] {
        replace(small.dir.join(MANIFEST), text).unwrap();
        let error = refusal(&small);
        assert!(matches!(error, RuntimeError::Manifest { .. }) && error.hint().is_some(), "{text}");
    }
    fs::remove_file(small.dir.join(MANIFEST)).unwrap();
    assert!(matches!(refusal(&small), RuntimeError::Io { .. }));
}

#[test]
fn plans_that_lie_about_sizes_are_refused() {
    for (from, to) in [
        ("arena 256 {", "arena 64 {"),
        ("arena 256 {", "arena 99999999999999999999999 {"),
        ("f32[P+T,32]", "f32[P+T,64]"),
        ("f32[L,4096]", "f32[L,8192]"),
        ("weight \"head\" f32[4096,32]", "weight \"head\" f32[8192,32]"),
        ("weight \"head\" f32[4096,32]", "weight \"head\" f32[18446744073709551615,32]"),
        ("weight \"head\" f32[4096,32]", "weight \"other\" f32[4096,32]"),
        ("weight \"head\"", "output \"head\""),
        ("linear %", "linear %99, %"),
        ("heads=2, kv_heads=2", "heads=3, kv_heads=2"),
    ] {
        let Some(small) = small() else { return };
        small.forge_text(PLAN, from, to);
        let error = refusal(&small);
        let expected =
            matches!(error, RuntimeError::Plan(_) | RuntimeError::PlanText(_) | RuntimeError::Weight { .. });
        assert!(expected, "{to}: {error}");
    }
}

#[test]
fn a_kernel_that_the_library_lacks_is_an_error() {
    let Some(small) = small() else { return };
    small.forge_text(PLAN, "linear_0: ", "linear_7: ");
    let artifact = Artifact::open(&small.dir).unwrap();
    let error = Session::open(&artifact, LIMITS).err().expect("there is no linear_7");
    assert_eq!(error.to_string(), "the compiled code has no kernel `linear_7`, which the plan launches");
    small.forge(CPU_LIBRARY, |_| b"no library".to_vec());
    let error = Session::open(&artifact, LIMITS).err().expect("that is no library");
    assert!(matches!(error, RuntimeError::Library(_)) && error.to_string().contains("model.so"), "{error}");
}

#[test]
fn weights_that_are_truncated_missing_or_of_another_type_are_refused() {
    let Some(small) = small() else { return };
    let original = fs::read(small.dir.join(WEIGHTS)).unwrap();
    let refused = |forged: Vec<u8>, reason: &str| {
        small.forge(WEIGHTS, |_| forged);
        let error = refusal(&small);
        assert!(matches!(error, RuntimeError::Weight { .. }), "{reason}: {error}");
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    };
    refused(original[..original.len() - 100].to_vec(), "weights.safetensors");
    refused(original[..20].to_vec(), "weights.safetensors");
    refused([&u64::MAX.to_le_bytes()[..], &original[8..]].concat(), "weights.safetensors");

    let tensors = SafeTensors::deserialize(&original).unwrap();
    let keep = |name: &str| (name.to_string(), tensors.tensor(name).unwrap());
    let pack = |list: Vec<_>| safetensors::serialize(list, None).unwrap();
    refused(pack(vec![keep("embed")]), "`head`: is missing");
    let extra = ("extra".to_string(), tensors.tensor("head").unwrap());
    refused(pack(vec![keep("embed"), keep("head"), extra]), "`extra`: is not a weight of the plan");
    let bytes = tensors.tensor("head").unwrap().data();
    for (dtype, shape) in [
        (safetensors::Dtype::I32, vec![4096, 32]),
        (safetensors::Dtype::F32, vec![32, 4096]),
        (safetensors::Dtype::F32, vec![4096 * 32]),
    ] {
        let view = safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap();
        refused(pack(vec![keep("embed"), ("head".to_string(), view)]), "the plan wants F32 [4096, 32]");
    }
    small.forge(WEIGHTS, |_| original.clone());
    Artifact::open(&small.dir).unwrap();
}

#[test]
fn no_change_of_a_text_makes_the_reader_panic() {
    let Some(small) = small() else { return };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for file in [PLAN, MANIFEST] {
        let original = fs::read(small.dir.join(file)).unwrap();
        let mut refused = 0;
        for _ in 0..150 {
            let mut text = original.clone();
            for _ in 0..random.random_range(1..4) {
                mutate(&mut text, &mut random);
            }
            if file == PLAN {
                small.forge(PLAN, |_| text);
            } else {
                replace(small.dir.join(MANIFEST), text).unwrap();
            }
            refused += usize::from(Artifact::open(&small.dir).is_err());
        }
        replace(small.dir.join(file), &original).unwrap();
        if file == PLAN {
            small.forge(PLAN, |plan| plan);
        }
        Artifact::open(&small.dir).unwrap();
        assert!(refused > 100, "{file}: {refused}");
    }
}

fn mutate(text: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    const BYTES: &[u8] = b"0123456789[]{}<>,:=%+\"-.eTPL \n\xff";
    let at = random.random_range(0..text.len());
    match random.random_range(0..4) {
        0 => text[at] = BYTES[random.random_range(0..BYTES.len())],
        1 => text.insert(at, BYTES[random.random_range(0..BYTES.len())]),
        2 => drop(text.remove(at)),
        _ => {
            let end = (at + random.random_range(1..40)).min(text.len());
            let piece = text[at..end].to_vec();
            text.splice(at..at, piece);
        }
    }
}
