//! A language model of one attention layer as an artifact, its kernels compiled from C.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use fireq_codegen::artifact::{ArtifactError, Build, Code, Partial, Stored, write};
use fireq_ir::Graph;
use fireq_ir::artifact::{CPU_LIBRARY, MANIFEST, Manifest, ModelFacts, Target};
use fireq_ir::plan::lower;
use fireq_ir::text::parse_graph;
use tempfile::TempDir;

pub const VOCAB: usize = 4096;
pub const CONTEXT: usize = 40;

const MODEL: &str = r#"
graph "small" {
  %0 = input {name="tokens"} : i32[T]
  %1 = input {name="positions"} : i32[T]
  %2 = input {name="select"} : i32[L]
  %3 = const {name="embed"} : f32[4096,32]
  %4 = gather %3, %0 : f32[T,32]
  %5 = cache {name="k.0"} : f32[P,32]
  %6 = kv_append %5, %4 : f32[P+T,32]
  %7 = cache {name="v.0"} : f32[P,32]
  %8 = kv_append %7, %4 : f32[P+T,32]
  %9 = attention %4, %6, %8 {heads=2, kv_heads=2, scale=0.25, p=f32} : f32[T,32]
  %10 = gather %9, %2 : f32[L,32]
  %11 = const {name="head"} : f32[4096,32]
  %12 = linear %10, %11 : f32[L,4096]
  return %12
}
"#;

/// An artifact in a temporary directory.
pub struct Small {
    pub graph: Graph,
    pub dir: PathBuf,
    _temporary: TempDir,
}

/// Writes the artifact; `None`, with a word on stderr, where there is no C compiler.
pub fn small() -> Option<Small> {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("skipped: no cc");
        return None;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("small.fireq");
    let graph = parse_graph(MODEL).unwrap();
    let lowered = lower(&graph).unwrap();
    let model = ModelFacts { context: CONTEXT, vocab: VOCAB, bos: None, eos: vec![] };
    let build = Build {
        weightless: false,
        graph: &graph,
        plans: vec![Stored::cpu(&graph, &lowered)],
        recipe: "none",
        model,
        copies: vec![],
        texts: vec![],
        threads: 2,
        key: String::new(),
        sources: fireq_ir::Sources::default(),
    };
    write(&build, &Partial::open(&dir).unwrap(), |dir| Ok(compile(dir)), &|_| ())
        .map_err(|e: ArtifactError| e.to_string())
        .unwrap();
    Some(Small { graph, dir, _temporary: temporary })
}

fn compile(dir: &Path) -> Code {
    let library = dir.join(CPU_LIBRARY);
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/artifact/kernels.c");
    let compiled = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-lm")
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let target = Target { arch: std::env::consts::ARCH.into(), triple: String::new(), features: vec![] };
    Code { target: Some(target), ..Code::default() }
}

impl Small {
    /// Changes the manifest.
    pub fn edit_manifest(&self, edit: impl FnOnce(&mut Manifest)) {
        let path = self.dir.join(MANIFEST);
        let mut manifest = Manifest::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut manifest);
        fs::write(path, manifest.to_json()).unwrap();
    }

    /// Changes a file, and the manifest with it: what a forger would do.
    pub fn forge(&self, file: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.dir.join(file);
        let forged = edit(fs::read(&path).unwrap());
        let hash = blake3::hash(&forged).to_hex().to_string();
        replace(path, forged).unwrap();
        self.edit_manifest(|manifest| drop(manifest.files.insert(file.into(), hash)));
    }

    /// [`Small::forge`] for text.
    pub fn forge_text(&self, file: &str, from: &str, to: &str) {
        self.forge(file, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "`{from}` is not in\n{text}");
            text.replacen(from, to, 1).into_bytes()
        });
    }
}

/// Another file in place of one that may still be mapped by what is not wanted any more, and is hashed until that is noticed.
pub fn replace(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    drop(fs::remove_file(&path));
    fs::write(path, bytes)
}
