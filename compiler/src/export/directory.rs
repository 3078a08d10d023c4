//! The directory of an export: filled under another name beside it, and renamed when it is complete.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::ExportError;
use super::error::at;

/// The file that says what was exported; a directory that has it is an export.
pub const REPORT: &str = "fireq-export.json";

/// Whether `out` is an export to be replaced; anything else that exists is refused.
pub fn check_output(out: &Path) -> Result<bool, ExportError> {
    if out.symlink_metadata().is_err() {
        return Ok(false);
    }
    let report = fs::read(out.join(REPORT)).unwrap_or_default();
    let report: Value = serde_json::from_slice(&report).unwrap_or_default();
    let ours = report["format"].is_string() && report["fireq"].is_string();
    if ours { Ok(true) } else { Err(ExportError::Exists(out.into())) }
}

/// Fills the directory `out`. Where that fails nothing is left behind, and what was there is as it was.
pub(super) fn fill<T>(
    out: &Path,
    fill: impl FnOnce(&Path) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let replaces = check_output(out)?;
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".fireq-").tempdir_in(parent).map_err(at(parent))?;
    let made = fill(temporary.path())?;
    publish(temporary, out, replaces)?;
    Ok(made)
}

/// Renames the finished directory to `out`. An export there is moved aside first and removed last.
fn publish(temporary: TempDir, out: &Path, replaces: bool) -> Result<(), ExportError> {
    let aside = temporary.path().with_extension("old");
    set_readable(temporary.path()).map_err(at(temporary.path()))?;
    if replaces {
        fs::rename(out, &aside).map_err(at(out))?;
    }
    let finished = temporary.keep();
    if let Err(error) = fs::rename(&finished, out) {
        let _ = fs::remove_dir_all(&finished);
        if replaces {
            fs::rename(&aside, out).map_err(at(out))?;
        }
        return Err(at(out)(error));
    }
    if replaces { fs::remove_dir_all(&aside).map_err(at(&aside)) } else { Ok(()) }
}

/// Temporary directories are private; an export is as readable as any new directory.
fn set_readable(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}
