//! `cargo xtask ablation`: what each part of recipe `fireq` is worth, on a model and on its twin with outliers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use xtask::outliers::{self, Factors, Kind, Request};

use crate::run::{command, release_dir, root, run};

/// What is measured.
pub struct Ablation {
    pub model: PathBuf,
    pub text: PathBuf,
    pub ctx: usize,
    pub limit: usize,
}

/// A line of a recipe, and what stands there instead.
type Edit = (&'static str, &'static str);

/// Recipes by what they are called, and edits of `fireq`: a part off, or simpler.
const VARIANTS: &[(&str, &str, &[Edit])] = &[
    ("rtn", "rtn", &[]),
    ("paper", "paper", &[]),
    ("fireq", "fireq", &[]),
    ("no rope-pre (N)", "fireq", &[("rope-pre = \"search\"", "rope-pre = \"off\"")]),
    ("no rope-post (S)", "fireq", &[("rope-post = \"search\"", "rope-post = \"off\"")]),
    (
        "no rope-pre, no rope-post",
        "fireq",
        &[("rope-pre = \"search\"", "rope-pre = \"off\""), ("rope-post = \"search\"", "rope-post = \"off\"")],
    ),
    ("no linears (Λ)", "fireq", &[("linears = \"search\"", "linears = \"off\"")]),
    ("no catch-up", "fireq", &[("catch-up = 0.5", "catch-up = 0.0")]),
    ("search, not gptq", "fireq", &[("method = \"gptq\"", "method = \"search\"")]),
    ("nearest, not gptq", "fireq", &[("method = \"gptq\"", "method = \"nearest\"")]),
    ("kv absmax, not clipped", "fireq", &[("fit = \"clipped\"", "fit = \"absmax\"")]),
    ("kv signed, not clipped", "fireq", &[("fit = \"clipped\"", "fit = \"signed\"")]),
    ("not block by block", "fireq", &[("blocks = true", "blocks = false")]),
];

/// Prints a row for each variant: rise of perplexity and mean KL on the model and on its twin.
pub fn ablation(asked: &Ablation) -> Result<(), String> {
    run(&mut command(&["cargo", "build", "--release", "-p", "fireq"]))?;
    let temp = TempDir::new().map_err(|e| e.to_string())?;
    let models = [asked.model.clone(), twin(&asked.model, temp.path())?];
    println!("| recipe | rise | mean KL | rise, twin | mean KL, twin |\n|---|---|---|---|---|");
    for (name, recipe, edits) in VARIANTS {
        let file = temp.path().join("variant.toml");
        fs::write(&file, edited(recipe, edits)?).map_err(|e| e.to_string())?;
        let cells = models.iter().map(|model| {
            let (rise, kl) = measure(asked, model, &file, &temp.path().join("out.fireq"))?;
            Ok(format!("{:+.2} % | {kl:.4}", rise * 100.0))
        });
        println!("| {name} | {} |", cells.collect::<Result<Vec<_>, String>>()?.join(" | "));
    }
    Ok(())
}

/// The twin of the design: norms, MLPs and rope pairs of keys.
fn twin(model: &Path, folder: &Path) -> Result<PathBuf, String> {
    let mut last = model.to_path_buf();
    for (kind, name) in [(Kind::Norms, "norms"), (Kind::Mlp, "mlp"), (Kind::Keys, "twin")] {
        let next = folder.join(name);
        outliers::write(&last, &next, &Request { kind, seed: 0, factors: Factors::default() })?;
        last = next;
    }
    Ok(last)
}

/// A built-in recipe with some of its lines changed.
fn edited(recipe: &str, edits: &[Edit]) -> Result<String, String> {
    let path = root().join(format!("passes/src/recipes/{recipe}.toml"));
    let mut text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    for (line, other) in edits {
        if !text.contains(line) {
            return Err(format!("recipe `{recipe}` has no `{line}` any more"));
        }
        text = text.replace(line, other);
    }
    Ok(text)
}

/// Rise of perplexity, and mean KL in nats.
fn measure(asked: &Ablation, model: &Path, recipe: &Path, out: &Path) -> Result<(f64, f64), String> {
    let [model, recipe, out, text] = [model, recipe, out, &asked.text].map(|path| path.to_string_lossy());
    output(&["compile", &model, "-o", &out, "--recipe", &recipe])?;
    let (ctx, limit) = (asked.ctx.to_string(), asked.limit.to_string());
    let options = ["--ctx", &ctx, "--limit", &limit, "--against", &model, "--json"];
    let found = output(&[&["eval", &out, "--text", &text][..], &options].concat())?;
    let found: Value = serde_json::from_str(&found).map_err(|e| e.to_string())?;
    let number = |value: &Value| value.as_f64().ok_or_else(|| format!("no number in {found}"));
    let against = &found["against"];
    let rise = number(&found["perplexity"])? / number(&against["perplexity"])? - 1.0;
    Ok((rise, number(&against["mean_kl"])?))
}

/// What `fireq` prints.
fn output(args: &[&str]) -> Result<String, String> {
    let fireq = release_dir().join("fireq");
    let found = command(&[&fireq.to_string_lossy()]).args(args).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if found.status.success() { Ok(text(&found.stdout)) } else { Err(text(&found.stderr)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_changes_its_recipe() {
        for (name, recipe, edits) in VARIANTS {
            let (before, after) = (edited(recipe, &[]).unwrap(), edited(recipe, edits).unwrap());
            assert_eq!(before == after, edits.is_empty(), "{name}");
        }
        let gone = edited("fireq", &[("no such line", "")]).unwrap_err();
        assert_eq!(gone, "recipe `fireq` has no `no such line` any more");
    }
}
