//! `fireq tune` on a driver whose GPU is the simulator: what is measured there says nothing about a GPU, but all else is as
//! it will be.

mod simulated;
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fireq_kernels::cuda::tuning::Tuning;
use tempfile::TempDir;

use simulated::{failed, succeeded};

/// A tiny artifact for GPUs, and a folder in which the simulated driver goes by the name of the real one.
struct Tuned {
    temp: TempDir,
    artifact: PathBuf,
}

impl Tuned {
    fn new() -> Option<Self> {
        let temp = TempDir::new().unwrap();
        simulated::driver(temp.path(), "tuning of GPU kernels")?;
        tiny::write(&temp.path().join("model"), &tiny::config(), &tiny::tensors());
        let artifact = temp.path().join("out.fireq");
        let tuned = Tuned { temp, artifact };
        succeeded(&tuned.compile(&tuned.artifact, &[]));
        Some(tuned)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
        command.env("XDG_CACHE_HOME", self.temp.path());
        command
    }

    fn compile(&self, out: &Path, more: &[&str]) -> Output {
        let mut command = self.command();
        command.arg("compile").arg(self.temp.path().join("model")).arg("-o").arg(out);
        command.args(["--recipe", "rtn", "--target", "sm_90a"]).args(more).output().unwrap()
    }

    fn tune(&self, more: &[&str]) -> Output {
        let mut command = self.command();
        let path = self.temp.path();
        simulated::on(&mut command, &path.join("driver"), &path.join("fireq/kernels"));
        command.arg("tune").arg(&self.artifact).args(more).output().unwrap()
    }

    fn kernels(&self, artifact: &Path) -> String {
        succeeded(&self.command().arg("inspect").arg(artifact).arg("--kernels").output().unwrap())
    }
}

#[test]
fn winners_are_kept_in_the_artifact_and_serve_other_compilations() {
    let Some(tuned) = Tuned::new() else { return };
    let before = fs::read(tuned.artifact.join("weights.sm_90a.safetensors")).unwrap();
    let said = succeeded(&tuned.tune(&["--tokens", "1,20", "--candidates", "3", "--launches", "1"]));
    assert!(said.starts_with(&format!("on {}\n", simcuda::NAME)) && said.contains("gain"), "{said}");
    let text = fs::read_to_string(tuned.artifact.join("tuning.json")).unwrap();
    let tuning: Tuning = serde_json::from_str(&text).unwrap();
    tuning.check().unwrap();
    for winners in tuning.products.values() {
        assert_eq!(winners.iter().map(|w| w.tokens).collect::<Vec<_>>(), [1, 20]);
        assert!(winners.iter().all(|w| w.tried == 3 && w.seconds <= w.model));
    }
    let kernels = tuned.kernels(&tuned.artifact);
    assert!(kernels.contains("the quickest of 3 on simulated sm_90a"), "{kernels}");
    let products = kernels.split("\nlinear_").skip(1).map(|rest| rest.lines().take(6).collect::<String>());
    let products: Vec<String> = products.collect();
    assert!(!products.is_empty() && products.iter().all(|p| !p.contains("unmeasured")), "{kernels}");
    assert_eq!(fs::read(tuned.artifact.join("weights.sm_90a.safetensors")).unwrap(), before);

    let other = tuned.temp.path().join("other.fireq");
    succeeded(&tuned.compile(&other, &["--tuning", tuned.artifact.to_str().unwrap()]));
    assert_eq!(tuned.kernels(&other), kernels);
    assert_eq!(fs::read_to_string(other.join("tuning.json")).unwrap(), text);
}

#[test]
fn without_a_gpu_the_artifact_stays_as_it_was() {
    let Some(tuned) = Tuned::new() else { return };
    let before = fs::read(tuned.artifact.join("manifest.json")).unwrap();
    let said = failed(&tuned.tune(&["--tokens", "20,1"]));
    assert!(said.contains("rising numbers"), "{said}");
    let output = tuned.command().arg("tune").arg(&tuned.artifact).args(["--tokens", "1"]).output().unwrap();
    // A machine with a driver has something to measure.
    if !output.status.success() {
        let said = failed(&output);
        assert!(said.contains("no NVIDIA driver") && said.contains("the cost models decide"), "{said}");
        assert_eq!(fs::read(tuned.artifact.join("manifest.json")).unwrap(), before);
    }
}

#[test]
fn a_table_that_is_none_is_refused_before_any_work() {
    let Some(tuned) = Tuned::new() else { return };
    let (table, out) = (tuned.temp.path().join("t.json"), tuned.temp.path().join("no.fireq"));
    for (text, why) in [
        ("{", "EOF"),
        (r#"{"device": "x", "products": {"p": []}}"#, "rise"),
        (r#"{"device": "x", "products": {}, "more": 1}"#, "more"),
    ] {
        fs::write(&table, text).unwrap();
        let said = failed(&tuned.compile(&out, &["--tuning", table.to_str().unwrap()]));
        assert!(said.contains(why) && said.contains("t.json"), "{said}");
        assert!(!out.exists());
    }
    let said = failed(&tuned.compile(&out, &["--tuning", tuned.artifact.to_str().unwrap()]));
    assert!(said.contains("tuning.json"), "{said}");
}
