//! `cargo xtask new-pass NAME`: a pass that works, to be made into another one: its file, its row in the table, and a
//! case that fires and one that must not.

use std::fs;
use std::path::Path;

use crate::run::{command, root, run};

/// Creates the pass in the repository and accepts the snapshots of its cases.
pub fn new_pass(id: &str) -> Result<(), String> {
    create(&root(), id)?;
    run(&mut command(&["cargo", "fmt", "--all"]))?;
    crate::test::bless(Some(format!("ir/{id}/")))?;
    let file = id.replace('-', "_");
    println!(
        "passes/src/{file}.rs   the pass: its contract, its example, where it fires and what it does there\n\
         passes/src/table.rs   its row: say what it does and what it may do to the numbers\n\
         tests/ir/{id}/        its cases; `cargo xtask bless {id}` accepts what it does now\n\
         passes/README.md      how passes are written"
    );
    Ok(())
}

/// Writes the files of a pass below `root`.
fn create(root: &Path, id: &str) -> Result<(), String> {
    check(root, id)?;
    // The templates are a pass, too: `new-pass`, which the tests of the passes run.
    let fill = |template: &str| template.replace("new-pass", id);
    let sources = root.join("passes/src");
    let (library, table) = (sources.join("lib.rs"), sources.join("table.rs"));
    let (library_text, table_text) = (read(&library)?, read(&table)?);
    let module = id.replace('-', "_");
    let row = format!(
        "    PassInfo {{\n        id: \"{id}\",\n        summary: \"SiLU of the channels that are wanted\",\n        \
         effect: Effect::Exact,\n        options: &[],\n        build: Build::Sites(crate::{module}::site),\n    }},\n];\n",
    );
    let library_text = insert_sorted(&library_text, "mod ", &format!("mod {module};"))?;
    let head = table_text.strip_suffix("];\n").ok_or("passes/src/table.rs does not end with the table")?;
    write(&sources.join(format!("{module}.rs")), &fill(include_str!("../templates/pass.rs")))?;
    write(&library, &library_text)?;
    write(&table, &format!("{head}{row}"))?;
    let cases = root.join("tests/ir").join(id);
    fs::create_dir_all(&cases).map_err(|e| format!("{}: {e}", cases.display()))?;
    write(&cases.join("fires.ir"), &fill(include_str!("../templates/fires.ir")))?;
    write(&cases.join("must-not-fire.ir"), &fill(include_str!("../templates/must-not-fire.ir")))
}

fn check(root: &Path, id: &str) -> Result<(), String> {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !id.split('-').all(part) {
        return Err(format!("`{id}` is not a name such as `fold-norm-weights`"));
    }
    let path = root.join("passes/src").join(format!("{}.rs", id.replace('-', "_")));
    if path.exists() { Err(format!("{} exists already", path.display())) } else { Ok(()) }
}

/// `text` with `line` among the lines that start with `prefix`, which are sorted.
fn insert_sorted(text: &str, prefix: &str, line: &str) -> Result<String, String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|l| l.starts_with(prefix));
    let first = first.ok_or_else(|| format!("no line starts with `{prefix}`"))?;
    let after = lines[first..].iter().position(|l| !l.starts_with(prefix) || *l > line);
    lines.insert(first + after.unwrap_or(lines.len() - first), line);
    Ok(lines.join("\n") + "\n")
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_a_file_a_row_and_two_cases() {
        let dir = std::env::temp_dir().join(format!("fireq-new-pass-{}", std::process::id()));
        fs::create_dir_all(dir.join("passes/src")).unwrap();
        for name in ["lib.rs", "table.rs"] {
            fs::copy(root().join("passes/src").join(name), dir.join("passes/src").join(name)).unwrap();
        }
        create(&dir, "early-slices").unwrap();
        let text = |path: &str| read(&dir.join(path)).unwrap();
        assert!(text("passes/src/lib.rs").contains("\nmod dce;\nmod early_slices;\nmod error;\n"));
        assert!(
            text("passes/src/table.rs")
                .ends_with("build: Build::Sites(crate::early_slices::site),\n    },\n];\n")
        );
        assert!(text("passes/src/early_slices.rs").starts_with("//! `early-slices`: "));
        assert!(text("tests/ir/early-slices/fires.ir").starts_with("// run: early-slices; fires\n"));
        assert!(
            text("tests/ir/early-slices/must-not-fire.ir")
                .starts_with("// run: early-slices; must not fire\n")
        );
        assert!(create(&dir, "early-slices").unwrap_err().ends_with("early_slices.rs exists already"));
        assert_eq!(create(&dir, "Early").unwrap_err(), "`Early` is not a name such as `fold-norm-weights`");
        fs::remove_dir_all(&dir).unwrap();
    }
}
