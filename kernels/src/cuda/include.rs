//! Includes, resolved here: NVRTC gets one text that needs no file and no include path.

use std::collections::BTreeSet;

use thiserror::Error;

use super::sources::{LAYERS, source};

/// An include that cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IncludeError {
    /// No building block has this path.
    #[error("{from}: no building block is called `{path}`")]
    Unknown {
        /// The file with the include.
        from: String,
        /// What it includes.
        path: String,
    },
    /// A file includes one of its own layer, or of a higher one.
    #[error("{from}: includes `{path}`, which is not of a lower layer ({})", LAYERS.join(" → "))]
    Upwards {
        /// The file with the include.
        from: String,
        /// What it includes.
        path: String,
    },
}

/// The text of a unit with every include replaced by the file it names, each file once, where it is first wanted.
/// Positions in messages and in debug information stay those of the files.
pub fn resolve(name: &str, unit: &str) -> Result<String, IncludeError> {
    let mut resolved = Resolved { text: String::new(), seen: BTreeSet::new() };
    resolved.file(name, unit, LAYERS.len())?;
    Ok(resolved.text)
}

struct Resolved {
    text: String,
    seen: BTreeSet<String>,
}

impl Resolved {
    /// Appends a file that may include files of layers below `layer`.
    fn file(&mut self, name: &str, text: &str, layer: usize) -> Result<(), IncludeError> {
        self.text += &format!("#line 1 \"{name}\"\n");
        for (n, line) in text.lines().enumerate() {
            if line.trim() == "#pragma once" {
                self.text += "\n";
                continue;
            }
            let Some(path) = included(line) else {
                self.text += line;
                self.text += "\n";
                continue;
            };
            self.include(name, path, layer)?;
            self.text += &format!("#line {} \"{name}\"\n", n + 2);
        }
        Ok(())
    }

    fn include(&mut self, from: &str, path: &str, below: usize) -> Result<(), IncludeError> {
        let place = || (from.to_string(), path.to_string());
        let found = source(path).zip(layer_of(path)).ok_or_else(|| {
            let (from, path) = place();
            IncludeError::Unknown { from, path }
        });
        let (text, layer) = found?;
        if layer >= below {
            let (from, path) = place();
            return Err(IncludeError::Upwards { from, path });
        }
        if self.seen.insert(path.to_string()) { self.file(path, text, layer) } else { Ok(()) }
    }
}

/// The path of an include line.
fn included(line: &str) -> Option<&str> {
    line.trim().strip_prefix("#include")?.trim().strip_prefix('"')?.strip_suffix('"')
}

fn layer_of(path: &str) -> Option<usize> {
    let (folder, _) = path.split_once('/')?;
    LAYERS.iter().position(|layer| *layer == folder)
}

#[cfg(test)]
mod tests {
    use super::super::sources::SOURCES;
    use super::*;

    #[test]
    fn every_building_block_resolves_and_comes_once() {
        for (path, _) in SOURCES {
            let text = resolve("unit.cu", &format!("#include \"{path}\"\n#include \"{path}\"\n")).unwrap();
            assert!(!text.contains("#include"), "{path}");
            assert_eq!(text.matches(&format!("#line 1 \"{path}\"")).count(), 1, "{path}");
        }
    }

    #[test]
    fn lines_stay_those_of_the_files() {
        let text = resolve("unit.cu", "// one\n#include \"ptx/types.cuh\"\nint three;\n").unwrap();
        assert!(text.starts_with("#line 1 \"unit.cu\"\n// one\n#line 1 \"ptx/types.cuh\"\n"), "{text}");
        assert!(text.ends_with("#line 3 \"unit.cu\"\nint three;\n"), "{text}");
    }

    #[test]
    fn what_leads_nowhere_or_upwards_is_refused() {
        let unknown = resolve("unit.cu", "#include \"ptx/nothing.cuh\"").unwrap_err();
        assert_eq!(unknown.to_string(), "unit.cu: no building block is called `ptx/nothing.cuh`");
        let mut low = Resolved { text: String::new(), seen: BTreeSet::new() };
        let upwards = low.file("tile/x.cuh", "#include \"quant/e4m3.cuh\"", 1).unwrap_err();
        assert!(matches!(upwards, IncludeError::Upwards { .. }), "{upwards}");
    }
}
