//! What a GPU machine runs, against a driver whose GPU is the simulator: cases that hold, one that does not, one whose
//! kernel fails, and no driver at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::version;
use fireq_gpu::{Buffer, Case, Cost, Dtype, Expected, Init, Param, Tolerance};
use fireq_ir::quant::Quantized;
use fireq_ir::{Fit, Format};
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::{Linear, LinearConfig, Unit, quantize};
use fireq_kernels::records::records;
use serde_json::Value;

/// A folder of cases, and one in which the simulated driver goes by the name of the real one.
struct Bundle {
    dir: tempfile::TempDir,
}

impl Bundle {
    /// An empty one; none, which is said, where nothing can be compiled.
    fn new() -> Option<Self> {
        if version().is_err() {
            eprintln!("skipped: the GPU harness: no NVRTC (cargo xtask setup)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for folder in ["cases", "kernels", "driver"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let library = std::env::current_exe().unwrap().with_file_name("libsimcuda.so");
        std::os::unix::fs::symlink(library, dir.path().join("driver/libcuda.so")).unwrap();
        Some(Bundle { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn add(&self, unit: &Unit, case: &Case) {
        let compiled = Cache::of_user().compile(&unit.name, &unit.source().unwrap()).unwrap();
        let kernel = |extension| self.path().join(format!("kernels/{}.{extension}", unit.name));
        fs::write(kernel("cubin"), compiled.cubin).unwrap();
        fs::write(kernel("ptx"), compiled.ptx).unwrap();
        case.save(&self.path().join(format!("cases/{}.case", case.name))).unwrap();
    }

    /// Runs all cases on the simulated GPU.
    fn run(&self) -> (Output, Value) {
        let results = self.path().join("results.json");
        let output = harness(self.path(), &results)
            .env("LD_LIBRARY_PATH", self.path().join("driver"))
            .env("FIREQ_SIM_PTX", self.path().join("kernels"))
            .output()
            .unwrap();
        let json = fs::read(&results).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        (output, json)
    }
}

fn harness(bundle: &Path, results: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq-gpu"));
    command.arg(bundle).arg("-o").arg(results);
    command
}

fn floats(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn wave(count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * i + 3 * i) as f32 * 0.37).sin() * scale).collect()
}

fn input(name: &str, bytes: Vec<u8>) -> Buffer {
    Buffer { name: name.into(), len: bytes.len(), init: Init::Data(bytes), expected: None }
}

fn output(name: &str, bytes: Vec<u8>, dtype: Dtype, tolerance: Tolerance) -> Buffer {
    let len = bytes.len();
    Buffer {
        name: name.into(),
        len,
        init: Init::Poison,
        expected: Some(Expected { bytes, dtype, tolerance }),
    }
}

/// A case whose parameters have the addresses of its buffers, in their order, in these fields.
fn case<P: Params>(unit: &Unit, rows: usize, params: &P, fields: &[usize], buffers: Vec<Buffer>) -> Case {
    let fill = |(buffer, at): (usize, &usize)| (*at, Param::Address { buffer, byte: 0 });
    Case {
        name: unit.name.clone(),
        unit: unit.name.clone(),
        kernel: unit.name.clone(),
        shape: unit.launch(rows, 0),
        params: params.bytes(),
        fills: fields.iter().enumerate().map(fill).collect(),
        buffers,
        cost: None,
    }
}

/// Rows of 112 numbers, quantized, which is also timed.
fn quantization() -> (Unit, Case) {
    let (cols, rows) = (112, 3);
    let x = wave(cols * rows, 20.0);
    let expected = Quantized::from_rows(&x, cols, &Format::activation(), Fit::Absmax);
    let codes = expected.codes.iter().map(|code| *code as u8).collect();
    let unit = quantize(cols).unwrap();
    let at = |field: &str| params::Quantize::FIELDS.iter().find(|(name, _)| *name == field).unwrap().1;
    let buffers = vec![
        input("x", floats(&x)),
        output("codes", codes, Dtype::Bytes, Tolerance::Exact),
        output("scales", floats(&expected.scales[0]), Dtype::F32, Tolerance::Exact),
    ];
    let params = params::Quantize::default();
    let mut case = case(&unit, rows, &params, &[at("x"), at("codes"), at("scales")], buffers);
    case.cost = Some(Cost { bytes: (cols * rows * 5) as u64, flops: 0 });
    (unit, case)
}

/// INT4 weights times FP8 tokens, by a cluster of two CTAs that TMA feeds.
fn product() -> (Unit, Case) {
    let (channels, cols, tokens) = (68, 272, 5);
    let weight = Quantized::from_rows(&wave(channels * cols, 0.1), cols, &Format::weight(128), Fit::Signed);
    let x = Quantized::from_rows(&wave(tokens * cols, 3.0), cols, &Format::activation(), Fit::Absmax);
    let [w, y] = [&weight, &x].map(Quantized::dequantize);
    let dot = |t: usize, n: usize| {
        let pairs = w[n * cols..][..cols].iter().zip(&y[t * cols..][..cols]);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
    };
    let out: Vec<f32> =
        (0..tokens).flat_map(|t| (0..channels).map(move |n| (t, n))).map(|(t, n)| dot(t, n)).collect();
    let linear = Linear::plain(channels, cols, 128);
    let config = LinearConfig {
        tokens: 8,
        warpgroups: 1,
        stages: 3,
        steps: 2,
        split: 2,
        cluster: 1,
        promotion: 0,
        band: 0,
    };
    let unit = linear.unit(&config, String::new()).unwrap();
    let at = |field: &str| params::Linear::FIELDS.iter().find(|(name, _)| *name == field).unwrap().1;
    let buffers = vec![
        input("records", records(&weight).unwrap()),
        input("token scales", floats(&x.scales[0])),
        input("channel scales", floats(&weight.scales[1])),
        output("out", floats(&out), Dtype::F32, Tolerance::Relative(1e-5)),
        input("x", x.codes.iter().map(|code| *code as u8).collect()),
    ];
    let params = params::Linear {
        tokens: tokens as u32,
        channels: channels as u32,
        steps: linear.steps() as u32,
        ..params::Linear::default()
    };
    let fields = [at("records"), at("token_scales"), at("channel_scales"), at("out")];
    let mut case = case(&unit, tokens, &params, &fields, buffers);
    case.fills.push((at("x"), Param::TensorMap { buffer: 4, shape: linear.x(&config, tokens) }));
    (unit, case)
}

#[test]
fn kernels_hold_on_the_simulated_gpu_and_are_timed() {
    let Some(bundle) = Bundle::new() else { return };
    for (unit, case) in [quantization(), product()] {
        bundle.add(&unit, &case);
    }
    let (output, results) = bundle.run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!((&results["failed"], &results["of"]), (&Value::from(0), &Value::from(2)), "{said}");
    assert_eq!(results["gpu"]["name"], simcuda::NAME);
    assert_eq!(results["gpu"]["compute_capability"], serde_json::json!([9, 0]));
    let cases = results["cases"].as_array().unwrap();
    assert!(cases.iter().all(|case| case["passed"] == true && case["checked"] == true), "{results}");
    let timed: Vec<f64> = cases.iter().filter_map(|case| case["time"]["median"].as_f64()).collect();
    assert!(timed.len() == 1 && timed[0] > 0.0, "{results}");
}

#[test]
fn a_wrong_result_is_reported_with_its_buffer() {
    let Some(bundle) = Bundle::new() else { return };
    let (unit, mut case) = quantization();
    case.buffers[1].expected.as_mut().unwrap().bytes[7] ^= 1;
    bundle.add(&unit, &case);
    let (output, results) = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(results["failed"], 1, "{}", String::from_utf8_lossy(&output.stderr));
    let wrong: Vec<bool> =
        results["cases"][0]["buffers"].as_array().unwrap().iter().map(|b| b["wrong"].is_string()).collect();
    assert_eq!(wrong, [true, false], "{results}");
}

#[test]
fn a_kernel_that_fails_ends_the_run_with_the_driver_s_words() {
    let Some(bundle) = Bundle::new() else { return };
    let (unit, mut case) = quantization();
    case.shape.grid[0] += 1;
    bundle.add(&unit, &case);
    let (output, _) = bundle.run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("byte 1344 of `memory`") && said.contains("unspecified launch failure"), "{said}");
}

#[test]
fn without_a_driver_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cases")).unwrap();
    let results: PathBuf = dir.path().join("results.json");
    let output = harness(dir.path(), &results).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // A machine with a driver has no case to run.
    assert!(output.status.success() || said.contains("no NVIDIA driver"), "{said}");
}
