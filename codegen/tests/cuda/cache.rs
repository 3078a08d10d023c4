//! The cache of compiled units.

use fireq_codegen::cuda::cache::Cache;

use super::units::nvrtc_is_here;

const TEXT: &str = "extern \"C\" __global__ void k(float* x) { x[threadIdx.x] = 1.0f; }\n";

#[test]
fn entries_are_whole_found_again_and_made_anew_when_damaged() {
    if !nvrtc_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(Some(dir.path().join("kernels")));
    let entries = || -> Vec<_> {
        std::fs::read_dir(dir.path().join("kernels")).unwrap().map(|e| e.unwrap().path()).collect()
    };
    let first = cache.compile("k", TEXT).unwrap();
    let [entry] = &entries()[..] else { panic!("one entry, and nothing half done: {:?}", entries()) };
    // What is found is what is there, not what would be compiled.
    std::fs::write(entry.join("unit.ptx"), "from the cache").unwrap();
    assert_eq!(cache.compile("k", TEXT).unwrap().ptx, "from the cache");
    std::fs::remove_file(entry.join("unit.cubin")).unwrap();
    assert_eq!(cache.compile("k", TEXT).unwrap(), first);
    assert_eq!(cache.compile("k", TEXT).unwrap(), first, "the damaged entry was replaced");
    assert!(entry.join("unit.cubin").exists());
    cache.compile("k", &TEXT.replace("1.0f", "2.0f")).unwrap();
    assert_eq!(entries().len(), 2);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    if !nvrtc_is_here() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let cache = Cache::new(Some(file.path().join("kernels")));
    assert_eq!(cache.compile("k", TEXT).unwrap(), Cache::new(None).compile("k", TEXT).unwrap());
}

#[test]
fn what_is_compiled_does_not_tell_where() {
    if !nvrtc_is_here() {
        return;
    }
    let text = format!("#line 1 \"k.cu\"\n{TEXT}#line 1 \"tile/row.cuh\"\n{}", TEXT.replace("k(", "l("));
    let compiled = Cache::new(None).compile("k", &text).unwrap();
    let files: Vec<&str> = compiled.ptx.lines().filter(|line| line.contains(".file")).collect();
    assert!(
        files.len() == 2 && files[0].contains("\"k.cu\"") && files[1].contains("\"tile/row.cuh\""),
        "{files:?}"
    );
    let here = std::env::current_dir().unwrap().display().to_string();
    let found = compiled.cubin.windows(here.len()).any(|bytes| bytes == here.as_bytes());
    assert!(!found && !compiled.ptx.contains(&here), "the working directory {here} is in the machine code");
    let refused =
        Cache::new(None).compile("k", "#line 7 \"tile/row.cuh\"\nint x = y;\n").unwrap_err().to_string();
    assert!(refused.contains("\ntile/row.cuh(7): error"), "{refused}");
}
