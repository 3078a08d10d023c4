//! `cargo xtask gpu-bundle` and `gpu-report`: kernels to a machine with a GPU, and its results back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::gpu_model::{self, ARTIFACT};
use crate::lean;
use crate::run::{command, release_dir, root, run, succeeded};

/// The file with the folders of a bundle, as `run.sh` knows it.
const PACKED: &str = "cases.txz";
const PARTS: [&str; 4] = ["cases", "kernels", DEMO, ARTIFACT];
/// The demo model for GPUs.
const DEMO: &str = "demo.fireq";

/// The most bytes of a bundle.
const LIMIT: u64 = 64 << 20;

/// Writes a folder with everything that `run.sh` in it needs: cubins, cases with the results that the simulator and the
/// interpreter agree on, cases to time, and binaries that need nothing but a driver.
pub fn bundle(to: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", to.display());
    fs::create_dir_all(to).map_err(failed)?;
    if fs::read_dir(to).map_err(failed)?.next().is_some() {
        return Err(format!("{} is not empty", to.display()));
    }
    let to = to.canonicalize().map_err(failed)?;
    let test = ["cargo", "test", "-q", "-p", "fireq-tests", "--test", "gpu_kernels"];
    run(command(&test).env("FIREQ_GPU_BUNDLE", &to))?;
    if !to.join("cases").exists() {
        return Err("no case was recorded: GPU kernels need NVRTC (cargo xtask setup)".into());
    }
    run(&mut command(&["cargo", "build", "-q", "--release", "-p", "fireq-gpu", "-p", "fireq-sim-driver"]))?;
    let fireq = lean::build(&to.join(DEMO))?;
    gpu_model::add(&to, &fireq)?;
    rehearse(&to, &fireq)?;
    let scripts = root().join("tests/gpu");
    for (from, name) in [
        (release_dir().join("fireq-gpu"), "fireq-gpu"),
        (fireq, "fireq"),
        (scripts.join("run.sh"), "run.sh"),
        (scripts.join("bench.py"), "bench.py"),
        (scripts.join("bench_model.py"), "bench_model.py"),
    ] {
        fs::copy(&from, to.join(name)).map_err(|e| format!("{}: {e}", from.display()))?;
    }
    // Memory of cases and machine code take a quarter of it packed; `xz` finds what kernels have in common.
    run(command(&["tar", "-cJf"])
        .arg(to.join(PACKED))
        .arg("-C")
        .arg(&to)
        .args(PARTS)
        .env("XZ_OPT", "-5 -T0"))?;
    for part in PARTS {
        fs::remove_dir_all(to.join(part)).map_err(failed)?;
    }
    let size = size(&to).map_err(failed)?;
    println!("{}: {:.1} MiB; there: ./run.sh RESULTS", to.display(), size as f64 / f64::from(1 << 20));
    if size > LIMIT { Err(format!("it has more than {} MiB", LIMIT >> 20)) } else { Ok(()) }
}

/// Checks every case and every launch of the demo model as they will be checked there, on a driver whose GPU is the simulator;
/// the code of cases is not needed any more then.
fn rehearse(bundle: &Path, fireq: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("the simulated driver: {e}");
    let aside = tempfile::tempdir().map_err(failed)?;
    let (driver, kernels) = (release_dir().join("libsimcuda.so"), bundle.join("kernels"));
    fs::copy(driver, aside.path().join("libcuda.so")).map_err(failed)?;
    let demo = bundle.join(DEMO);
    let ptx = format!("{}:{}", kernels.display(), demo.join("kernels").display());
    let on_simulator = |program: &Path| {
        let mut command = command(&[&program.to_string_lossy()]);
        command.env("LD_LIBRARY_PATH", aside.path()).env("FIREQ_SIM_PTX", &ptx);
        command
    };
    let mut compare = on_simulator(fireq);
    compare.arg("logits").arg(&demo).args([
        "--device",
        "cuda",
        "--compare-ops",
        "--tokens",
        "0,420,449,259,394,12",
    ]);
    let said = succeeded(compare.output(), "the demo model fails on the simulated GPU already")?;
    println!("{said}");
    let mut check = on_simulator(&release_dir().join("fireq-gpu"));
    check.arg("--check").arg(bundle).arg("-o").arg(aside.path().join("results.json"));
    let said = succeeded(check.output(), "cases fail on the simulated GPU already")?;
    println!(
        "{} cases hold on the simulated GPU",
        said.lines().filter(|line| line.starts_with("ok")).count()
    );
    for entry in fs::read_dir(&kernels).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "ptx") {
            fs::remove_file(path).map_err(failed)?;
        }
    }
    Ok(())
}

fn size(dir: &Path) -> std::io::Result<u64> {
    fs::read_dir(dir)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        Ok(sum + if metadata.is_dir() { size(&entry.path())? } else { metadata.len() })
    })
}

/// Where the part of the results begins that is written here.
const HEADING: &str = "## On a GPU\n";

/// Replaces the last part of `kernels/RESULTS.md` by what `run.sh` left in `results`.
pub fn report(results: &Path) -> Result<(), String> {
    let path = root().join("kernels/RESULTS.md");
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let json = |name: &str| -> Result<Value, String> {
        serde_json::from_str(&read(&results.join(name))?).map_err(|e| format!("{name}: {e}"))
    };
    let (kernels, torch) = (json("kernels.json")?, json("torch.json").unwrap_or(Value::Null));
    if kernels["gpu"]["name"].as_str().is_some_and(|name| name.starts_with("simulated")) {
        return Err("these are results of the simulator, whose times say nothing about a GPU".into());
    }
    let optional = |name: &str| json(name).unwrap_or(Value::Null);
    let model = gpu_model::table(&optional("model.json"), &optional("torch_model.json"));
    let model = model.map(|table| format!("\n{table}")).unwrap_or_default();
    let date = read(&results.join("date"))?;
    let demo = read(&results.join("demo.txt")).unwrap_or_else(|_| "not run".into());
    let clocks = read(&results.join("gpu.csv"))?;
    let text = read(&path)?;
    let kept = text.find(HEADING).map_or(&*text, |at| &text[..at]);
    let tables = tables(&kernels, &torch, date.trim(), &clocks)?;
    let new = format!("{kept}{HEADING}\n{tables}{model}\nThe demo model:\n\n```text\n{}\n```\n", demo.trim());
    fs::write(&path, new).map_err(|e| format!("{}: {e}", path.display()))
}

/// The results in words and tables.
fn tables(kernels: &Value, torch: &Value, date: &str, clocks: &str) -> Result<String, String> {
    let cases = kernels["cases"].as_array().ok_or("kernels.json has no cases")?;
    let (failed, of) = (&kernels["failed"], &kernels["of"]);
    let checked = cases.iter().filter(|case| case["checked"] == true).count();
    let mut text = format!(
        "{date}, {}. `cargo xtask gpu-bundle DIR`, there `DIR/run.sh RESULTS`, here `cargo xtask gpu-report RESULTS`.\n\n\
         Of {of} cases {checked} have known results; {failed} failed.\n\n```text\n{}\n```\n\n",
        kernels["gpu"]["name"].as_str().unwrap_or("a GPU"),
        clocks.trim()
    );
    for case in cases.iter().filter(|case| case["passed"] != true) {
        text += &format!("* **failed**: {}: {}\n", case["name"], case["buffers"]);
    }
    text += "PyTorch's attention in bf16 is that of FlashAttention or of cuDNN, timed apart (*: with heads of keys repeated before, for want of grouped heads); ratios are its times over the kernel's.\n\n\
             | case | µs | TB/s | TFLOP/s | PyTorch µs | ratio | Flash µs | ratio | cuDNN µs | ratio | registers | local bytes |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for case in cases.iter().filter(|case| case["time"].is_object()) {
        text += &row(case, torch);
    }
    Ok(text + &refusals(cases, torch))
}

/// What of `PyTorch` is timed: everything but attention as such, attention by its backends.
const COUNTERPARTS: [Option<&str>; 3] = [None, Some("flash"), Some("cudnn")];

/// What `PyTorch` has beside a case: an object with `seconds` or an `error`, or nothing.
fn counterpart<'a>(torch: &'a Value, case: &Value, of: Option<&str>) -> &'a Value {
    let all = &torch["cases"][case["name"].as_str().unwrap_or_default()];
    of.map_or(all, |backend| &all[backend])
}

/// What `PyTorch` could not do, with the reason and how many cases have nothing beside them because of it.
fn refusals(cases: &[Value], torch: &Value) -> String {
    let mut found = BTreeMap::<_, usize>::new();
    for (case, of) in cases.iter().flat_map(|case| COUNTERPARTS.map(|of| (case, of))) {
        if let Some(error) = counterpart(torch, case, of)["error"].as_str() {
            *found.entry((of.unwrap_or("PyTorch"), error)).or_default() += 1;
        }
    }
    let line = |((of, error), count): ((&str, &str), usize)| {
        let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("* **unavailable** beside {count} cases: {of}: {error}\n")
    };
    let lines: String = found.into_iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// A line of the table of times.
fn row(case: &Value, torch: &Value) -> String {
    let name = case["name"].as_str().unwrap_or_default();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let seconds = number(&case["time"]["median"]);
    let micros = |s: f64| format!("{:.1}", s * 1e6);
    let own = [
        name.to_string(),
        micros(seconds),
        format!("{:.3}", number(&case["bytes_per_second"]) / 1e12),
        format!("{:.1}", number(&case["flops_per_second"]) / 1e12),
    ];
    let others = COUNTERPARTS.into_iter().flat_map(|of| {
        let other = counterpart(torch, case, of);
        match other["seconds"].as_f64() {
            Some(seconds_of) => {
                let repeated = if other["heads"] == "repeated" { "*" } else { "" };
                [micros(seconds_of) + repeated, format!("{:.2}", seconds_of / seconds)]
            }
            None if other["error"].is_string() => ["unavailable".into(), "–".into()],
            None => ["–".into(), "–".into()],
        }
    });
    let resources = ["registers", "local"].map(|name| case["resources"][name].to_string());
    let cells: Vec<String> = own.into_iter().chain(others).chain(resources).collect();
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_has_failures_and_times_beside_those_of_torch() {
        let kernels = json!({ "gpu": { "name": "H200" }, "failed": 1, "of": 2, "cases": [
            { "name": "add 8", "passed": true, "checked": false, "time": { "median": 2e-6 }, "bytes_per_second": 4e12,
              "flops_per_second": 0.0, "resources": { "registers": 32, "local": 0 } },
            { "name": "prefill", "passed": true, "checked": false, "time": { "median": 2e-6 }, "bytes_per_second": 1e11,
              "flops_per_second": 8e14, "resources": { "registers": 168, "local": 0 } },
            { "name": "norm", "passed": false, "checked": true, "buffers": [{ "name": "codes", "wrong": "error 1" }] },
        ]});
        let torch = json!({ "cases": { "add 8": { "seconds": 3e-6 },
            "prefill": { "flash": { "seconds": 5e-6, "heads": "repeated" }, "cudnn": { "error": "no\n backend" } } } });
        let text = tables(&kernels, &torch, "2026-01-02", "clocks").unwrap();
        assert!(
            text.contains("| add 8 | 2.0 | 4.000 | 0.0 | 3.0 | 1.50 | – | – | – | – | 32 | 0 |"),
            "{text}"
        );
        let attention = "| prefill | 2.0 | 0.100 | 800.0 | – | – | 5.0* | 2.50 | unavailable | – | 168 | 0 |";
        assert!(text.contains(attention), "{text}");
        assert!(text.contains("* **unavailable** beside 1 cases: cudnn: no backend"), "{text}");
        assert!(text.contains("**failed**: \"norm\"") && text.contains("1 failed"), "{text}");
        let without = tables(&kernels, &Value::Null, "2026-01-02", "clocks").unwrap();
        assert!(without.contains("| – | – | – | – | – | – | 32 |"), "{without}");
        assert!(tables(&json!({}), &torch, "", "").is_err());
    }
}
