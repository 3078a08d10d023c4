//! Where links in an artifact lead, and what is no file.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

use fireq_ir::artifact::{GRAPH, MANIFEST, PLAN, WEIGHTS};
use fireq_runtime::{Artifact, RuntimeError};

use super::small::{Small, small};

fn refusal(small: &Small) -> RuntimeError {
    Artifact::open(&small.dir).expect_err("the artifact is refused")
}

#[test]
fn links_that_lead_out_are_not_followed_whatever_they_lead_to() {
    let Some(small) = small() else { return };
    let outside = tempfile::tempdir().unwrap();
    for file in [MANIFEST, PLAN, GRAPH, WEIGHTS] {
        let path = small.dir.join(file);
        let away = outside.path().join(file);
        fs::rename(&path, &away).unwrap();
        symlink(&away, &path).unwrap();
        let error = refusal(&small);
        assert!(matches!(&error, RuntimeError::Outside(name) if name == file), "{file}: {error}");
        assert!(error.hint().is_some());
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
    }
    let folder = outside.path().join("cpu");
    fs::rename(small.dir.join("cpu"), &folder).unwrap();
    symlink(&folder, small.dir.join("cpu")).unwrap();
    assert_eq!(refusal(&small).to_string(), "`cpu/model.so` is a link that leads out of the artifact");
}

#[test]
fn links_inside_and_to_the_artifact_are_followed() {
    let Some(small) = small() else { return };
    let data = small.dir.join("data");
    fs::create_dir(&data).unwrap();
    for file in [MANIFEST, PLAN, WEIGHTS] {
        fs::rename(small.dir.join(file), data.join(file)).unwrap();
        symlink(format!("data/{file}"), small.dir.join(file)).unwrap();
    }
    let temporary = tempfile::tempdir().unwrap();
    let link = temporary.path().join("link.fireq");
    symlink(&small.dir, &link).unwrap();
    let artifact = Artifact::describe(&link).unwrap();
    assert!(artifact.text(GRAPH).unwrap().starts_with("graph \"small\""));
    assert!(matches!(artifact.text("data/plan.ir"), Err(RuntimeError::Unlisted(_))));
}

#[test]
fn what_is_no_file_or_too_large_for_a_text_is_not_read() {
    let Some(small) = small() else { return };
    for file in [MANIFEST, PLAN, WEIGHTS] {
        let path = small.dir.join(file);
        let own = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = refusal(&small).to_string();
        assert!(error.ends_with("it is not a regular file"), "{file}: {error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal(&small).to_string().ends_with("it is not a regular file"), "{file}");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, own).unwrap();
    }
    File::options().write(true).open(small.dir.join(MANIFEST)).unwrap().set_len(1 << 33).unwrap();
    assert!(refusal(&small).to_string().ends_with("it has more than 64 MiB"));
}
