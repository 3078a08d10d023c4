//! Graphs to look at: Graphviz text, and the page, driven in a headless browser where there is one.

mod browser;
mod tiny;

use std::fs;
use std::path::Path;

use browser::{data, seen};
use fireq::view::{State, dot, page};
use fireq_ir::text::parse_and_verify;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny::fireq;

const GRAPH: &str = r#"graph "a \"graph\" </script><b>" {
  %0 = input {name="x"} : f32[T,4]
  %1 = const {name="model.layers.0.norm.weight", data=[1.0, 0.0, 0.5, -2.0]} : f32[4]
  %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,4]
  %3 = add %0, %2 : f32[T,4]
  %4 = const {name="model.layers.1.norm.weight", data=[1.0, 2.0, 0.5, -2.0]} : f32[4]
  %5 = rms_norm %3, %4 {eps=1e-5} : f32[T,4]
  %6 = add %3, %5 : f32[T,4]
  %7 = const {name="norm.weight", data=[1.0, 1.0, 1.0, 1.0]} : f32[4]
  %8 = rms_norm %6, %7 {eps=1e-5} : f32[T,4]
  return %8
}
"#;

fn state(text: &str) -> State {
    State { title: "import".into(), graph: parse_and_verify(text).unwrap(), patches: vec![] }
}

#[test]
fn dot_has_a_cluster_for_each_block_and_an_edge_for_each_operand() {
    let text = dot(&state(GRAPH).graph);
    assert!(text.starts_with("digraph \"a \\\"graph\\\" </script><b>\" {"), "{text}");
    for title in ["start", "layer 0", "layer 1", "end"] {
        assert_eq!(text.matches(&format!("label=\"{title}\"")).count(), 1, "{title}\n{text}");
    }
    assert_eq!(text.matches(" -> v").count(), 10);
    assert!(
        text.contains("v1 [label=\"%1 const model.layers.0.norm.weight\\nf32[4]\", shape=note"),
        "{text}"
    );
    assert_eq!(text, dot(&state(GRAPH).graph));
}

#[test]
fn names_never_become_markup() {
    let page = page(&[state(GRAPH)], true);
    assert_eq!(page.matches("</script>").count(), 2, "those of the page itself");
    assert!(!page.contains("<b>"));
    assert_eq!(data(&page)["name"], "a \"graph\" </script><b>");
}

#[test]
fn every_operand_of_every_state_is_there_and_constants_have_statistics() {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
    let out = dir.path().join("out.html");
    let result = fireq(&[
        "inspect",
        dir.path().to_str().unwrap(),
        "--passes",
        "full",
        "--html",
        out.to_str().unwrap(),
    ]);
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let data = data(&fs::read_to_string(&out).unwrap());
    let states = data["states"].as_array().unwrap();
    assert!(states.len() > 10);
    for state in states {
        let versions: Vec<&Value> = state["order"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| &data["versions"][v.as_u64().unwrap() as usize])
            .collect();
        let alive: Vec<&Value> = versions.iter().map(|v| &v[0]).collect();
        let operands = versions.iter().flat_map(|v| v[4].as_array().unwrap());
        assert!(operands.into_iter().all(|operand| alive.contains(&operand)), "{}", state["title"]);
        assert_eq!(state["places"].as_array().unwrap().len(), versions.len());
        assert!(!state["stats"].as_object().unwrap().is_empty(), "{}", state["title"]);
    }
    let weight = &data["constants"]["model.embed_tokens.weight"];
    assert!(weight[0].as_f64().unwrap() < weight[1].as_f64().unwrap(), "{weight}");
}

#[test]
fn statistics_are_those_of_the_data() {
    let data = data(&page(&[state(GRAPH)], true));
    // Least, largest, mean, standard deviation, largest magnitude, share of zeros.
    let expected = json!([-2.0, 1.0, -0.125, 1.1388, 2.0, 0.25]);
    assert_eq!(data["constants"]["model.layers.0.norm.weight"], expected);
    let without = page(&[state(GRAPH)], false);
    assert!(without.contains("\"constants\":{}"));
}

#[test]
fn a_configuration_alone_gives_the_shapes_of_its_model() {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
    let inspect = |path: &Path, option: &str| {
        let result = fireq(&["inspect", path.to_str().unwrap(), option]);
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        String::from_utf8(result.stdout).unwrap()
    };
    let json = |path: &Path| serde_json::from_str::<Value>(&inspect(path, "--json")).unwrap();
    let (model, shape) = (json(dir.path()), json(&dir.path().join("config.json")));
    for key in ["parameters", "caches", "cache_bytes_per_token", "inputs", "outputs", "ops"] {
        assert_eq!(model[key], shape[key], "{key}");
    }
    assert_eq!(shape["kind"], "configuration");
    assert!(inspect(&dir.path().join("config.json"), "--dot").contains("label=\"layer 1\""));
    let mut many = tiny::config();
    many["num_hidden_layers"] = json!(1_000_000_000);
    fs::write(dir.path().join("config.json"), many.to_string()).unwrap();
    let result = fireq(&["inspect", dir.path().join("config.json").to_str().unwrap()]);
    let log = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(log.contains("`num_hidden_layers` is a whole number from 1 to 1024"), "{log}");
}

/// What a person would do, and what they would see then.
const DRIVER: &str = r#"
seen.push(["blocks", look(".block > h2").map((text) => text.replace(/hide|show/, ""))]);
element("slider").value = "1";
element("slider").dispatchEvent(new Event("input"));
seen.push(["slider", element("step").textContent, look(".chip.new").length, element("counts").textContent]);
key(document.body, "ArrowRight");
seen.push(["right", element("step").textContent, document.querySelectorAll(".node.new").length]);
element("search").value = "down_proj";
element("search").dispatchEvent(new Event("input"));
seen.push(["search", element("hits").textContent, document.querySelectorAll(".chip.hit").length]);
key(element("search"), "Enter");
seen.push(["enter", look("aside code")[0], look("aside h3").slice(0, 3)]);
const select = document.querySelector("h2 select");
select.value = "1";
select.dispatchEvent(new Event("change"));
seen.push(["layer", look(".chip").filter((text) => text.startsWith("cache")), location.hash]);
document.querySelector(".node").click();
seen.push(["click", document.querySelectorAll(".node.on").length > 0, look("aside h2")]);
"#;

#[test]
fn the_page_works_in_a_browser() {
    let dir = TempDir::new().unwrap();
    tiny::write(dir.path(), &tiny::config(), &tiny::tensors());
    let out = dir.path().join("out.html");
    let args = ["--passes", "rtn", "--html", out.to_str().unwrap()];
    assert!(fireq(&[&["inspect", dir.path().to_str().unwrap()][..], &args].concat()).status.success());
    let Some(seen) = seen(&fs::read_to_string(&out).unwrap(), DRIVER) else { return };
    let expected = json!([
        [
            "blocks",
            [
                "before the layers5 values, 2 constants",
                "layers 0–1×2 · 20 values, 9 constantslayer 0layer 1",
                "after the layers3 values, 2 constants",
            ]
        ],
        ["slider", "quantize-weights 1 of 3", 7, "28 new14 changed14 removed"],
        ["right", "quantize-activations 2 of 3", 11],
        ["search", "2 found", 1],
        ["enter", "model.layers.0.mlp.down_proj.weight", ["type", "statistics", "read by"]],
        ["layer", ["cache k.1", "cache v.1"], "#step=2&search=down_proj"],
        ["click", true, ["%0 input"]],
    ]);
    assert_eq!(seen, expected, "{seen:#}");
}
