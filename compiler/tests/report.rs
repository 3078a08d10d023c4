//! Reports of quantization as a page: what it holds, and what a person sees of it in a headless browser.

mod browser;

use std::time::Instant;

use browser::{data, seen};
use fireq::report::{Block, Calibration, Kv, Refused, Report, Smoothing, Weight, html};
use serde_json::json;

/// Numbers in (0, 1) without a pattern.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as f64 + 0.5) / (1u64 << 31) as f64
    }

    /// Channels of an activation, a few of them far larger than the others.
    fn channels(&mut self, count: usize) -> Vec<f32> {
        let outlier = |x: f64| if x < 0.002 { 60.0 } else { 1.0 };
        (0..count).map(|_| (outlier(self.next()) * (0.2 + 2.0 * self.next())) as f32).collect()
    }

    fn site(&mut self, site: &str, channels: usize) -> Smoothing {
        let before = self.channels(channels);
        let off = ["qkv", "rope-post"].contains(&site);
        let after = if off { before.clone() } else { before.iter().map(|x| x.powf(0.45)).collect() };
        let error = 0.02 + 0.05 * self.next();
        Smoothing {
            site: site.into(),
            form: if off { "off" } else { "activation^α / weight^(1−α)" }.into(),
            alpha: (!off).then_some(0.55),
            beta: (site == "rope-post").then_some(8.0),
            k: (site == "rope-post").then_some(4),
            tried: 21,
            error_before: error,
            error_after: if off { error } else { error * 0.6 },
            absmax_before: before,
            absmax_after: after,
        }
    }

    fn weight(&mut self, name: String, rows: usize, cols: usize) -> Weight {
        let groups = (rows * cols / 128) as f64;
        let shares = [0.05, 0.2, 0.35, 0.4];
        let ratios = [0.8_f32, 0.87, 0.93, 1.0];
        Weight {
            name,
            method: "gptq".into(),
            group: 128,
            rows,
            cols,
            error: 0.03 + 0.03 * self.next(),
            clip: ratios.into_iter().zip(shares.map(|s| (s * groups) as usize)).collect(),
            outer_min: 0.00021,
            outer_max: 0.0183,
            underflow: if self.next() < 0.1 { 12 } else { 0 },
        }
    }

    fn block(&mut self, index: usize, width: usize) -> Block {
        let (layer, attention) = (index / 2, index.is_multiple_of(2));
        let sites: &[(&str, usize)] = if attention {
            &[("qkv", 1), ("rope-pre", 1), ("rope-post", 1), ("o", 1)]
        } else {
            &[("gate-up", 1), ("down", 3)]
        };
        let linears: &[(&str, usize, usize)] = if attention {
            &[
                ("self_attn.q_proj", 1, 1),
                ("self_attn.k_proj", 1, 1),
                ("self_attn.v_proj", 1, 1),
                ("self_attn.o_proj", 1, 1),
            ]
        } else {
            &[("mlp.gate_proj", 3, 1), ("mlp.up_proj", 3, 1), ("mlp.down_proj", 1, 3)]
        };
        let error = 0.02 + 0.02 * self.next() + if layer == 1 && !attention { 0.4 } else { 0.0 };
        let name = |linear: &str| format!("model.layers.{layer}.{linear}.weight");
        let refused = Refused { site: "o".into(), reason: "its producer is shared by two readers".into() };
        Block {
            name: format!("layer {layer} {}", if attention { "attention" } else { "mlp" }),
            error,
            error_rtn: Some(error * (1.5 + self.next())),
            stream_error: Some(0.004 * (index + 1) as f64 + 0.002 * self.next()),
            smoothing: sites.iter().map(|(site, times)| self.site(site, width * times)).collect(),
            weights: linears.iter().map(|(n, r, c)| self.weight(name(n), r * width, c * width)).collect(),
            kv: attention.then(|| Kv { fit: "signed, 4 clips".into(), key_error: 0.081, value_error: 0.094 }),
            refused: if attention && layer % 5 == 2 { vec![refused] } else { vec![] },
        }
    }
}

fn made_up(blocks: usize, width: usize) -> Report {
    let mut noise = Noise(7);
    Report {
        model: "Llama-3.1-70B".into(),
        recipe: "fireq".into(),
        calibration: Calibration { text: "stories.txt".into(), sequences: 64, tokens_each: 512 },
        blocks: (0..blocks).map(|index| noise.block(index, width)).collect(),
    }
}

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>&amp;<!-- data --><!-- title -->";

/// Every text is one that would like to be markup.
fn hostile() -> Report {
    let mut report = made_up(2, 8);
    let text = || HOSTILE.to_string();
    (report.model, report.recipe, report.calibration.text) = (text(), text(), text());
    for block in &mut report.blocks {
        block.name = text();
        block.refused = vec![Refused { site: text(), reason: text() }];
        block.kv = Some(Kv { fit: text(), ..Kv::default() });
        block.smoothing.iter_mut().for_each(|site| (site.site, site.form) = (text(), text()));
        block.weights.iter_mut().for_each(|weight| (weight.name, weight.method) = (text(), text()));
    }
    report
}

#[test]
fn the_page_holds_every_outlier_and_stays_small() {
    let report = made_up(160, 4096);
    let began = Instant::now();
    let page = html(&report);
    assert!(page.len() < 8_000_000, "{} bytes", page.len());
    assert!(began.elapsed().as_secs() < 20);
    let data = data(&page);
    let site = &report.blocks[1].smoothing[1];
    let largest = site.absmax_before.iter().copied().fold(0.0, f32::max);
    let shown = &data["blocks"][1]["smoothing"][1]["before"];
    let values = |key: &str| -> Vec<f64> { serde_json::from_value(shown[key].clone()).unwrap() };
    let peak = values("channels").into_iter().fold(0.0, f64::max);
    assert!((peak / f64::from(largest) - 1.0).abs() < 0.005, "{peak} of {largest}");
    assert_eq!((values("channels").len(), values("sorted")[0]), (256, peak));
    assert_eq!(data["blocks"][159]["weights"].as_array().unwrap().len(), 3);
}

#[test]
fn a_block_of_many_is_looked_at() {
    let driver = r##"
seen.push(["worst", element("worst").textContent, look("aside h2"), look("#blocks tr.on td")[1]]);
seen.push(["overview", look("#blocks tbody tr").length, look("#errors-by-block .legend span").slice(1), location.hash]);
document.querySelectorAll("#blocks tbody tr")[4].click();
seen.push(["click", look("aside h2"), look("aside table")[0].includes("rope-post"), look("aside h3")[0], location.hash]);
seen.push(["sites", [...document.querySelectorAll("aside table")[0].rows].map((row) => row.cells[0].textContent)]);
const lines = (plot) => plot.querySelectorAll("path").length;
seen.push(["plots", [...document.querySelectorAll("aside .plot")].map(lines), look("aside .caption")[0]]);
seen.push(["forms", [...document.querySelectorAll("aside table")[0].rows].map((row) => row.cells[1].textContent === "off")]);
element("sorted").click();
seen.push(["sorted", look("aside .caption")[0], location.hash]);
seen.push(["weights", document.querySelectorAll("aside .clips i").length, look("aside .clips")[0]]);
key(document.body, "ArrowDown");
seen.push(["down", look("aside h2"), look("#blocks tr.on").length]);
const picture = document.querySelector("#errors-by-block svg");
const { left, width } = picture.getBoundingClientRect();
const at = (type, x) => picture.dispatchEvent(new MouseEvent(type, { clientX: left + x * width, bubbles: true }));
at("pointermove", 0);
seen.push(["pointer", look("#errors-by-block .legend span")[0]]);
document.querySelector("#errors-by-block svg").dispatchEvent(new MouseEvent("click", { clientX: left + width }));
seen.push(["pick", look("aside h2")]);
"##;
    let Some(seen) = seen(&html(&made_up(160, 4096)), driver) else { return };
    let expected = json!([
        ["worst", "layer 1 mlp", ["layer 1 mlp"], "layer 1 mlp"],
        ["overview", 160, ["error", "round to nearest", "residual stream"], "#block=3"],
        ["click", ["layer 2 attention"], true, "left alone", "#block=4"],
        ["sites", ["site", "qkv", "rope-pre", "rope-post", "o"]],
        ["plots", [1, 2, 1, 2], "qkv, 4096 channels"],
        ["forms", [false, true, false, true, false]],
        ["sorted", "qkv, 4096 channels, largest first", "#block=4&sorted"],
        ["weights", 16, "0.80.870.931"],
        ["down", ["layer 2 mlp"], 1],
        ["pointer", "layer 0 attention"],
        ["pick", ["layer 79 mlp"]],
    ]);
    assert_eq!(seen, expected, "{seen:#}");
}

#[test]
fn names_never_become_markup() {
    let page = html(&hostile());
    assert_eq!(page.matches("</script>").count(), 2, "those of the page itself");
    assert!(!page.contains("<img"));
    assert_eq!(data(&page)["blocks"][1]["weights"][0]["method"], HOSTILE);
    let driver = r##"
seen.push(document.title, look("h1")[0], document.querySelectorAll("img").length);
document.querySelectorAll("#blocks tbody tr")[0].click();
seen.push(look("aside h2")[0], look("aside code")[0], document.querySelectorAll("img").length);
"##;
    let Some(seen) = seen(&page, driver) else { return };
    let title = format!("{HOSTILE} · fireq");
    assert_eq!(seen, json!([title, HOSTILE, 0, HOSTILE, HOSTILE, 0]));
}

#[test]
fn a_report_of_little_is_shown_as_such() {
    let mut bare = made_up(2, 8);
    bare.blocks[0] = Block { name: "bare".into(), ..Block::default() };
    bare.blocks[1].error = f64::NAN;
    bare.blocks[1].smoothing[0].absmax_before = vec![];
    bare.blocks[1].smoothing[0].absmax_after = vec![];
    bare.blocks[1].smoothing[1].absmax_before = vec![0.0; 4];
    bare.blocks[1].smoothing[1].absmax_after = vec![f32::NAN, 1.0];
    let driver = r##"
seen.push(look("aside h2")[0], look("aside .plot p"), document.querySelector("main").innerHTML.includes("NaN"));
document.querySelectorAll("#blocks tbody tr")[0].click();
seen.push(look("aside")[0]);
"##;
    let nothing = json!(["no block was quantized", "relative L2 error by block: nothing was recorded"]);
    if let Some(seen) = seen(&html(&bare), driver) {
        let said = "gate-up, 0 channels: nothing was recorded";
        let panel = "bareerror 0 · round to nearest – · residual stream –";
        assert_eq!(seen, json!(["layer 0 mlp", [said], false, panel]));
    }
    if let Some(seen) = seen(&html(&Report::default()), "seen.push(look('aside')[0], look('.plot')[0]);") {
        assert_eq!(seen, nothing);
    }
}
