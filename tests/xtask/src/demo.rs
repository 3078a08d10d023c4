//! `cargo xtask demo`: the main job on the bundled model, one command line after another.

use std::path::Path;

use crate::run::{command, describe, release_dir, root, run};
use crate::setup::setup;

const MODEL: &str = "tests/models/tinystories-3m";
const ARTIFACT: &str = "target/demo/tinystories-3m.fireq";

/// Builds the compiler and shows what it does.
pub fn demo() -> Result<(), String> {
    setup()?;
    run(&mut command(&["cargo", "build", "--release", "-p", "fireq"]))?;
    let fireq = release_dir().join("fireq").to_string_lossy().into_owned();
    let lines: [&[&str]; 4] = [
        &["compile", MODEL, "-o", ARTIFACT, "--recipe", "rtn"],
        &["run", ARTIFACT, "--prompt", "Once upon a time", "-n", "160"],
        &["eval", ARTIFACT, "--text", "tests/models/stories.txt", "--ctx", "256", "--against", MODEL],
        &["bench", ARTIFACT],
    ];
    for line in lines {
        let mut command = command(&[&[fireq.as_str()][..], line].concat());
        println!("\n$ {}", describe(&command).replace(&fireq, "fireq"));
        run(&mut command)?;
    }
    sizes()
}

fn sizes() -> Result<(), String> {
    let size = |path: &str| {
        let path = root().join(Path::new(path));
        std::fs::metadata(&path).map(|m| m.len() as f64 / 1e6).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (before, after) =
        (size(&format!("{MODEL}/model.safetensors"))?, size(&format!("{ARTIFACT}/weights.safetensors"))?);
    println!(
        "\nweights: {before:.2} MB in bf16, {after:.2} MB compiled, {:.2} times smaller",
        before / after
    );
    Ok(())
}
