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
