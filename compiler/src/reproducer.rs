//! Reproducers: a graph and the pipeline to run on it, in one file that stands alone.
//!
//! The first line of a file of text IR may say `// run: <pipeline>`, as test cases do: `fireq opt` runs that pipeline when
//! it is not given another.

use std::fs;
use std::io;
use std::path::Path;

use fireq_ir::Graph;
use fireq_ir::text::print_standalone;

/// The most elements of a constant that a reproducer keeps: scales and norms, which passes look at; not weights.
pub(crate) const INLINE: usize = 1 << 14;

/// The text of a reproducer: the pipeline, why it was written, and the graph.
pub fn text(pipeline: &str, reason: &str, graph: &Graph) -> String {
    let reason: String = reason.lines().map(|line| format!("// {line}\n")).collect();
    format!("// run: {pipeline}\n{reason}{}", print_standalone(graph, INLINE))
}

/// Writes a reproducer under a temporary name beside it and renames it.
pub fn write(path: &Path, pipeline: &str, reason: &str, graph: &Graph) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = temporary_in(folder)?;
    fs::write(file.path(), text(pipeline, reason, graph))?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// A file under a temporary name that others may read once it is renamed, as far as the user's mask allows.
pub fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// The pipeline that the first line of a text names, without what test cases expect of it.
pub fn pipeline_of(text: &str) -> Option<&str> {
    let line = text.lines().next()?.strip_prefix("// run:")?;
    Some(line.rsplit_once("; ").map_or(line, |(pipeline, _)| pipeline).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipeline_of_a_case_or_reproducer_is_its_first_line() {
        assert_eq!(pipeline_of("// run: a{x=1},b; fires\ngraph"), Some("a{x=1},b"));
        assert_eq!(pipeline_of("// run: a{x=1}\n"), Some("a{x=1}"));
        assert_eq!(pipeline_of("graph \"g\" {"), None);
    }
}
