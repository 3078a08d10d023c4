//! GPU code without a GPU: `compile --target sm_90a`, what the artifact says of it, and what a whole model takes.

mod tiny;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use fireq_codegen::cuda::nvrtc::version;
use fireq_ir::artifact::{CudaCode, CudaKernel, Manifest};
use serde_json::Value;
use tempfile::TempDir;

/// False, and says so, where there is no NVRTC.
fn nvrtc_is_here() -> bool {
    let here = version().is_ok();
    if !here {
        eprintln!("skipped: GPU kernels: no NVRTC (cargo xtask setup)");
    }
    here
}

/// The binary with a cache of its own, so that what other runs compiled is not found.
fn fireq(cache: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fireq")).args(args).env("XDG_CACHE_HOME", cache).output().unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_artifact_for_gpus_has_a_kernel_for_every_launch() {
    if !nvrtc_is_here() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let (model, out) = (temp.path().join("model"), temp.path().join("out.fireq"));
    tiny::write(&model, &tiny::config(), &tiny::tensors());
    let (model, artifact) = (model.to_str().unwrap(), out.to_str().unwrap());
    let compile = ["compile", model, "-o", artifact, "--recipe", "rtn", "--target", "sm_90a"];
    let said = succeeded(&fireq(temp.path(), &compile));
    assert!(said.contains(" kernels\n") && !said.contains("none yet"), "{said}");

    let manifest = Manifest::parse(&fs::read_to_string(out.join("manifest.json")).unwrap()).unwrap();
    let cuda = manifest.cuda.unwrap();
    assert_eq!((manifest.target, cuda.arch.as_str()), (None, "sm_90a"));
    assert_eq!(cuda.missing().count(), 0);
    products_are_there_for_every_number_of_tokens(&cuda);
    for kernel in cuda.kernels.iter().filter(|kernel| kernel.compiled) {
        for extension in ["cu", "ptx", "cubin"] {
            let file = format!("kernels/{}.{extension}", kernel.name);
            assert!(out.join(&file).is_file() && manifest.files.contains_key(&file), "{file}");
        }
    }
    let launched: usize = cuda.kernels.iter().filter(|k| k.name.starts_with("qkv")).map(|k| k.count).sum();
    assert_eq!(launched, 2 * 6, "queries, keys and values of two layers, for few tokens and for many");

    let listed = succeeded(&fireq(temp.path(), &["inspect", artifact, "--kernels"]));
    for word in [
        "norm_quantize_f32_64\n",
        "registers",
        "no spills",
        "decode_attention_d32_q8_p64\n",
        "16-byte loads",
        "cost model",
        "gates and ups come apart: no kernel: 96 gates: multiples of 64 do",
    ] {
        assert!(listed.contains(word), "{word} is not in\n{listed}");
    }
    let json = succeeded(&fireq(temp.path(), &["inspect", artifact, "--kernels", "--json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let kernels = json["cuda"]["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), cuda.kernels.len());
    let local = |kernel: &Value| kernel["resources"]["local_bytes"].as_u64();
    assert!(
        kernels.iter().filter(|kernel| kernel["compiled"] == true).all(|kernel| local(kernel) == Some(0))
    );

    let manifest = out.join("manifest.json");
    let renamed =
        fs::read_to_string(&manifest).unwrap().replacen("\"name\": \"qkv_", "\"name\": \"../qkv_", 1);
    let listed = fs::write(&manifest, renamed)
        .map(|()| fireq(temp.path(), &["inspect", artifact, "--kernels"]))
        .unwrap();
    let refusal = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert_eq!(listed.status.code(), Some(1));
    assert!(refusal.starts_with("error: the manifest does not list `kernels/../qkv_"), "{refusal}");

    let run = fireq(temp.path(), &["logits", artifact, "--tokens", "1", "-o", "unused.safetensors"]);
    let refusal = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1));
    assert!(refusal.starts_with("error: the artifact is compiled for sm_90a only"), "{refusal}");
}

/// Each launch of a product has one kernel for any number of tokens, in front of which is one that decodes the weight, where the
/// product has it decoded; and gated products have another kernel behind them.
#[track_caller]
fn products_are_there_for_every_number_of_tokens(cuda: &CudaCode) {
    let products: BTreeSet<&str> = cuda
        .kernels
        .iter()
        .flat_map(|kernel| &kernel.launches)
        .filter(|symbol| symbol.starts_with("linear"))
        .map(String::as_str)
        .collect();
    assert_eq!(products.len(), 5, "logits, q/k/v, gate/up, o and down: {products:?}");
    for symbol in products {
        for tokens in [1, 2, 8, 9, 64, 100, 1000, 100_000] {
            let serves = |kernel: &&CudaKernel| {
                let holds = kernel.tokens.is_some_and(|range| range.holds(tokens));
                holds && kernel.launches.iter().any(|launch| launch == symbol)
            };
            let names: Vec<&str> = cuda.kernels.iter().filter(serves).map(|kernel| &*kernel.name).collect();
            match names[..] {
                [product] => assert!(!product.starts_with("linear_fp8"), "{symbol}, {tokens}: {names:?}"),
                [decoder, product] => {
                    assert!(
                        decoder.starts_with("decode_weight_g") && product.starts_with("linear_fp8"),
                        "{names:?}"
                    );
                }
                _ => panic!("{symbol}, {tokens} tokens: {names:?}"),
            }
        }
    }
    let swiglu = cuda.kernels.iter().find(|kernel| kernel.name == "swiglu_quantize_96").unwrap();
    assert_eq!((swiglu.tokens, &swiglu.launches[..]), (None, &["linear_swiglu_0".to_string()][..]));
}

#[test]
#[cfg(feature = "llvm")]
fn an_artifact_for_both_runs_on_the_cpu_as_one_for_the_cpu_does() {
    if !nvrtc_is_here() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_string();
    tiny::write(Path::new(&path("model")), &tiny::config(), &tiny::tensors());
    let logits = |target: &str| {
        let (artifact, out) = (path(&format!("{target}.fireq")), path("logits.safetensors"));
        let compile = ["compile", &path("model"), "-o", &artifact, "--recipe", "rtn", "--target", target];
        succeeded(&fireq(temp.path(), &compile));
        succeeded(&fireq(temp.path(), &["logits", &artifact, "--tokens", "3,1,4", "-o", &out]));
        fs::read(&out).unwrap()
    };
    assert!(logits("cpu") == logits("cpu,sm_90a"));
}

#[test]
fn without_nvrtc_nothing_is_written() {
    let temp = TempDir::new().unwrap();
    let (model, out) = (temp.path().join("model"), temp.path().join("out.fireq"));
    tiny::write(&model, &tiny::config(), &tiny::tensors());
    let args = ["compile", model.to_str().unwrap(), "-o", out.to_str().unwrap(), "--target", "sm_90a"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_fireq"));
    let refused = command.args(args).env("FIREQ_CUDA", temp.path().join("nowhere")).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("NVRTC, which compiles GPU kernels, is not installed"), "{message}");
    assert!(message.contains("help: ") && message.contains("nvidia-cuda-nvrtc"), "{message}");
    assert!(!out.exists());
}
