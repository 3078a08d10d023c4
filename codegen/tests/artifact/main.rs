//! What the artifact writer promises: the same bytes every time, nothing half done, nothing of others destroyed.

mod recode;
mod resumed;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fireq_codegen::artifact::{ArtifactError, Build, Code, News, Partial, Stored};
use fireq_ir::artifact::{CPU_LIBRARY, MANIFEST, Manifest, ModelFacts, PLAN, Target, WEIGHTS};
use fireq_ir::plan::{Lowered, Storage, lower, parse_plan, unpack};
use fireq_ir::text::parse_graph;
use fireq_ir::{ConstData, DType, Fit, Format, Graph, Op, Shape, Sources, Type};
use safetensors::SafeTensors;

const MODEL: &str = r#"
graph "small" {
  %0 = input {name="tokens"} : i32[T]
  %1 = const {name="embed"} : bf16[19,172]
  %2 = gather %1, %0 : f32[T,172]
  %3 = const {name="norm"} : f32[172]
  %4 = rms_norm %2, %3 {eps=0.00001} : f32[T,172]
  %5 = quantize %4 {to=e4m3<row:f32>} : e4m3<row:f32>[T,172]
  %6 = const {name="up"} : bf16[37,172]
  %7 = quantize %6 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[37,172]
  %8 = linear %5, %7 : f32[T,37]
  return %8
}
"#;

fn model() -> (Graph, Lowered) {
    lowered(parse_graph(MODEL).unwrap())
}

fn lowered(graph: Graph) -> (Graph, Lowered) {
    let lowered = lower(&graph).unwrap();
    (graph, lowered)
}

fn code(dir: &Path) -> Result<Code, ArtifactError> {
    let path = dir.join(CPU_LIBRARY);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"not really a library").map_err(|source| ArtifactError::Io { path, source })?;
    let target =
        Target { arch: "x86_64".into(), triple: "x86_64-unknown-linux-gnu".into(), features: vec![] };
    Ok(Code { target: Some(target), ..Code::default() })
}

fn write(
    build: &Build<'_>,
    out: &Path,
    code: impl FnOnce(&Path) -> Result<Code, ArtifactError>,
    tell: &(dyn Fn(News) + Sync),
) -> Result<Manifest, ArtifactError> {
    fireq_codegen::artifact::write(build, &Partial::open(out)?, code, tell)
}

fn write_model(
    (graph, lowered): &(Graph, Lowered),
    out: &Path,
    threads: usize,
) -> Result<Manifest, ArtifactError> {
    let texts = vec![("report.json", "{}\n".into())];
    write(&Build { texts, threads, ..plain(graph, lowered) }, out, code, &|_| ())
}

fn plain<'a>(graph: &'a Graph, lowered: &'a Lowered) -> Build<'a> {
    Build {
        graph,
        plans: vec![Stored::cpu(graph, lowered)],
        recipe: "test",
        weightless: false,
        model: ModelFacts { context: 64, vocab: 19, bos: None, eos: vec![2] },
        copies: vec![],
        texts: vec![],
        threads: 1,
        key: String::new(),
        sources: Sources::default(),
    }
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            files
                .extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn the_same_model_gives_the_same_bytes_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let artifact = |name: &str, threads| {
        let out = dir.path().join(name);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| write_model(&model, &out, threads)).unwrap();
        contents(&out)
    };
    let first = artifact("a", 1);
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        ["cpu/model.so", "graph.ir", "manifest.json", "plan.ir", "report.json", "weights.safetensors"]
    );
    assert_eq!(first, artifact("b", 1));
    assert_eq!(first, artifact("c", 2));
    assert_eq!(first, artifact("d", 7));
}

#[test]
fn the_manifest_vouches_for_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.fireq");
    let manifest = write_model(&model(), &out, 2).unwrap();
    let mut files = contents(&out);
    let json = String::from_utf8(files.remove(MANIFEST).unwrap()).unwrap();
    assert_eq!(Manifest::parse(&json).unwrap(), manifest);
    let hashes = files.iter().map(|(name, bytes)| (name.clone(), blake3::hash(bytes).to_hex().to_string()));
    assert_eq!(manifest.files, hashes.collect());
}

#[test]
fn weights_are_plain_safetensors_that_say_how_they_are_packed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.fireq");
    let (graph, lowered) = model();
    write_model(&(graph.clone(), lowered.clone()), &out, 2).unwrap();
    let bytes = fs::read(out.join(WEIGHTS)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata["layout.up"], "blocked32 i4<g128:e4m3,row:f32>[37,172]");
    assert_eq!(metadata["version"], "4");

    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.names().len(), 5);
    let shape = |name: &str| {
        (
            format!("{:?}", tensors.tensor(name).unwrap().dtype()),
            tensors.tensor(name).unwrap().shape().to_vec(),
        )
    };
    assert_eq!(shape("embed"), ("BF16".into(), vec![19, 172]));
    assert_eq!(shape("norm"), ("F32".into(), vec![172]));
    assert_eq!(shape("up.codes"), ("U8".into(), vec![37, 96]));
    assert_eq!(shape("up.scales"), ("F8_E4M3".into(), vec![37, 2]));
    assert_eq!(shape("up.outer"), ("F32".into(), vec![37, 1]));

    let arrays: Vec<&[u8]> =
        ["up.codes", "up.scales", "up.outer"].map(|name| tensors.tensor(name).unwrap().data()).to_vec();
    let ty = graph.ty(lowered.weights["up"]);
    let expected = fireq_ir::interp::eval_constant(&graph, lowered.weights["up"]).unwrap();
    assert_eq!(unpack(ty, Storage::Blocked32, &arrays).unwrap(), expected);
}

#[test]
fn numbers_are_aligned_to_their_size() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.fireq");
    write_model(&model(), &out, 1).unwrap();
    let bytes = fs::read(out.join(WEIGHTS)).unwrap();
    let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!((length + 8) % 64, 0);
    for (name, info) in header.tensors().into_iter().collect::<BTreeMap<_, _>>() {
        let size = info.dtype.bitsize() / 8;
        assert_eq!(info.data_offsets.0 % size, 0, "{name}");
        let whole_lines = (info.data_offsets.1 - info.data_offsets.0) % 64 == 0;
        assert!(!whole_lines || info.data_offsets.0 % 64 == 0, "{name}");
    }
}

#[test]
fn the_plan_in_the_artifact_is_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/folders/m.fireq");
    let model = model();
    write_model(&model, &out, 1).unwrap();
    assert_eq!(parse_plan(&fs::read_to_string(out.join(PLAN)).unwrap()).unwrap(), model.1.plan);
}

#[test]
fn an_artifact_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.fireq");
    write_model(&model(), &out, 1).unwrap();
    let older = fs::read_to_string(out.join(MANIFEST)).unwrap().replace("\"schema\": 4", "\"schema\": 0");
    fs::write(out.join(MANIFEST), older).unwrap();
    fs::write(out.join("stale"), b"of the old one").unwrap();
    write_model(&model(), &out, 1).unwrap();
    assert!(!out.join("stale").exists());
    assert_eq!(contents(dir.path()).len(), 6, "nothing is left beside the artifact");
    assert!(Manifest::parse(&fs::read_to_string(out.join(MANIFEST)).unwrap()).is_ok());
}

#[test]
fn nothing_else_is_ever_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let refused = |what: &str| {
        let error = write_model(&model(), &out, 1).unwrap_err();
        assert!(matches!(error, ArtifactError::Exists(_)), "{what}: {error}");
    };
    fs::write(&out, b"a file").unwrap();
    refused("a file");
    assert_eq!(fs::read(&out).unwrap(), b"a file");
    fs::remove_file(&out).unwrap();
    fs::create_dir(&out).unwrap();
    refused("an empty directory");
    fs::write(out.join(MANIFEST), br#"{"schema": 4, "name": "someone else's"}"#).unwrap();
    refused("a directory with another manifest");
    assert_eq!(contents(dir.path()).len(), 1);
}

#[test]
fn an_error_leaves_nothing_behind_and_the_old_artifact_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m.fireq");
    write_model(&model(), &out, 1).unwrap();
    let before = contents(dir.path());
    for (element, value) in [(0, f32::NAN), (77, f32::INFINITY)] {
        let error = write_model(&with_constant(element, value), &out, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("tensor `bad.weight` has a NaN or infinity at element {element}")
        );
    }
    let (graph, lowered) = model();
    let missing = vec![dir.path().join("no tokenizer.json")];
    let build = Build { copies: missing, ..plain(&graph, &lowered) };
    let error = write(&build, &out, code, &|_| ()).unwrap_err();
    assert!(matches!(error, ArtifactError::Io { .. }));
    let failing = |_: &Path| Err(ArtifactError::Code("no compiler".into()));
    assert!(write(&Build { copies: vec![], ..build }, &out, failing, &|_| ()).is_err());
    assert_eq!(contents(dir.path()), before);
}

/// A plan whose weights are a quantized constant with one bad element.
fn with_constant(element: usize, value: f32) -> (Graph, Lowered) {
    let mut graph = Graph::new("bad");
    let x = graph.input("x", Type::f32(fireq_ir::Dim::sym("T"), 64));
    let x8 = graph.add(Op::Quantize { to: Format::activation(), fit: Fit::Absmax }, &[x]).unwrap();
    let mut values = vec![0.5; 4 * 64];
    values[element] = value;
    let ty = Type::plain(DType::F32, Shape::matrix(4, 64));
    let weight = graph.constant("bad.weight", ty, ConstData::from_f32(&values));
    let codes = graph.add(Op::Quantize { to: Format::weight(64), fit: Fit::Absmax }, &[weight]).unwrap();
    let y = graph.add(Op::Linear, &[x8, codes]).unwrap();
    graph.outputs = vec![y];
    lowered(graph)
}

#[test]
fn data_of_the_wrong_size_is_an_error() {
    let (mut graph, lowered) = with_constant(0, 1.0);
    graph.constants.insert("bad.weight".into(), ConstData::from_f32(&[1.0; 3]));
    let dir = tempfile::tempdir().unwrap();
    let error = write_model(&(graph, lowered), &dir.path().join("new/folders/m"), 1).unwrap_err();
    assert!(matches!(error, ArtifactError::Weight(_)), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
#[cfg(feature = "llvm")]
fn code_for_cpus_is_not_made_from_plans_for_gpus() {
    use fireq_codegen::llvm::{Cpu, compile};
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &str| {
        let plan = fireq_ir::plan::lower_fused(&parse_graph(text).unwrap()).unwrap().plan;
        compile(&plan, Cpu::Baseline, &dir.path().join("model.so")).unwrap_err().to_string()
    };
    assert!(refused(MODEL).ends_with("codes are not stored in blocks: the plan is for GPUs"));
    let fused = MODEL.replace("%4 = rms_norm %2, %3 {eps=0.00001} : f32[T,172]\n", "").replace(
        "%5 = quantize %4 {to=e4m3<row:f32>}",
        "%5 = norm_quantize %2, %3 {eps=0.00001, to=e4m3<row:f32>}",
    );
    assert!(refused(&fused).ends_with("a fused launch, which plans for CPUs do not have"));
}
