//! `fireq eval --by-site`: which layer quantization hurts.

use std::collections::BTreeMap;
use std::sync::Arc;

use fireq::by_site::{DEFAULT, Engines, Harm, Measured, Saved, Site, Text, check_finite, measure, sites};
use fireq::compile::facts;
use fireq::import::{Model, import_with};
use fireq::source::{Source, classify};
use fireq::tokens::Tokens;
use fireq_ir::Pipeline;
use fireq_passes::{Calibration, Interpreter, RunError, pipeline_with};
use serde_json::{Value, json};

use super::eval::{check_ctx, encode, read_text};
use super::open::set_threads;
use super::output::{bytes, emit, emit_json, progress, table};
use crate::cli::{Device, Eval};
use crate::failure::{Failure, Outcome};

/// Prints sites and layers by what their quantization alone does to a model's predictions.
pub fn by_site(options: &Eval) -> Outcome {
    if options.model.device == Device::Cuda {
        return Err(Failure::new("sites are measured on CPUs").hint("use --device cpu"));
    }
    set_threads(options.model.threads)?;
    check_source(options)?;
    let passes = options.passes.as_deref().unwrap_or(DEFAULT);
    let pipeline = pipeline(passes)?;
    let text = read_text(options)?;
    let model = import_with(options.model.path(), options.model.import.options())?;
    let facts = facts(&model);
    let parts = encode(&Tokens::load(&model.dir, facts.bos)?, &text, options)?;
    check_ctx(options.ctx, facts.context)?;
    check_finite(&model.graph)?;
    let sites = sites(&model.graph, pipeline)?;
    let engines = engines(options, &model, &sites)?;
    let bar = progress("measuring", parts.ids.len() * (sites.len() + 1));
    let text = Text { start: parts.start, ids: &parts.ids, ctx: options.ctx };
    let measured = measure(&model.graph, &sites, &engines, text, |tokens| bar.inc(tokens as u64))?;
    bar.finish_and_clear();
    let report = Report { name: &model.config.name, passes, sites: &sites, measured: &measured };
    if options.json { emit_json(&report.json()) } else { emit(&report.text()) }
}

fn check_source(options: &Eval) -> Outcome {
    let path = options.model.path();
    if classify(path)? == Source::ModelDir {
        return Ok(());
    }
    let message =
        format!("--by-site quantizes a model itself, and `{}` is no model directory", path.display());
    Err(Failure::new(message).hint("give the directory with config.json and *.safetensors that it came from"))
}

/// The pipeline, whose passes get no calibration data.
fn pipeline(text: &str) -> Outcome<Pipeline> {
    let refuse = || Err(RunError("sites are tried one at a time, without calibration data".into()));
    Ok(pipeline_with(text, &Arc::new(Calibration::new(Arc::new(Interpreter), refuse)))?)
}

#[cfg_attr(not(feature = "llvm"), allow(clippy::unnecessary_wraps, reason = "compiling may fail"))]
fn engines(options: &Eval, model: &Model, sites: &[Site]) -> Outcome<Engines> {
    let facts = facts(model);
    #[cfg(feature = "llvm")]
    if !options.model.interpret {
        let threads = options.model.threads();
        return Ok(Engines::compiled(&facts, options.ctx, (&model.graph, sites), threads)?);
    }
    let _ = sites;
    Ok(Engines::interpreted(&facts, options.ctx))
}

/// All that is printed.
struct Report<'a> {
    name: &'a str,
    passes: &'a str,
    sites: &'a [Site],
    measured: &'a Measured,
}

/// Characters of the longest bar.
const BAR: f64 = 40.0;

impl Report<'_> {
    /// The sites with their harm, the worst first; of equal ones the first in the pipeline.
    fn ranked(&self) -> Vec<(&Site, &Harm)> {
        let mut ranked: Vec<_> = self.sites.iter().zip(&self.measured.harms).collect();
        // A site after which the model gives no number is worst.
        let rank = |harm: &Harm| if harm.kl.is_nan() { f64::INFINITY } else { harm.kl };
        ranked.sort_by(|(_, a), (_, b)| rank(b).total_cmp(&rank(a)));
        ranked
    }

    /// The sum of KL divergences of each layer's sites; those of no layer last.
    fn layers(&self) -> Vec<(Option<usize>, f64)> {
        let mut layers = BTreeMap::new();
        for (site, harm) in self.sites.iter().zip(&self.measured.harms) {
            *layers.entry(site.layer.unwrap_or(usize::MAX)).or_default() += harm.kl;
        }
        layers.into_iter().map(|(n, kl)| ((n != usize::MAX).then_some(n), kl)).collect()
    }

    fn text(&self) -> String {
        let reference = self.measured.reference;
        format!(
            "perplexity  {:.4}  ({}, {} tokens, nothing quantized)\nsites, each quantized alone, by mean KL in nats\n{}layers, the sum of their sites\n{}",
            reference.perplexity(),
            self.name,
            reference.tokens,
            self.site_table(),
            self.layer_table()
        )
    }

    fn site_table(&self) -> String {
        let head = ["mean KL", "perplexity", "saved", "site", "by", "to"].map(String::from);
        let rows = self.ranked().into_iter().map(|(site, harm)| {
            let upon = site.upon.map(|n| &self.sites[n]).map_or_else(String::new, upon);
            [
                format!("{:.6}", harm.kl),
                format!("{:+.3} %", harm.rise * 100.0),
                saved(site.saved),
                site.name.clone(),
                site.pass.clone(),
                site.formats.join(" and ") + &upon,
            ]
        });
        table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 3)
    }

    fn layer_table(&self) -> String {
        let layers = self.layers();
        let most = layers.iter().map(|(_, kl)| *kl).fold(f64::MIN_POSITIVE, f64::max);
        let bar = |kl: f64| "█".repeat((kl / most * BAR).round() as usize);
        let name = |layer: Option<usize>| layer.map_or_else(|| "outside".into(), |n| format!("layer {n}"));
        let row = |(layer, kl): &(Option<usize>, f64)| [name(*layer), format!("{kl:.6}"), bar(*kl)];
        table(&layers.iter().map(row).collect::<Vec<_>>(), 2)
    }

    fn json(&self) -> Value {
        let site = |(site, harm): (&Site, &Harm)| {
            json!({
                "pass": site.pass,
                "site": site.name,
                "layer": site.layer,
                "formats": site.formats,
                "upon": site.upon.map(|n| &self.sites[n]).map(|s| json!({ "pass": s.pass, "site": s.name })),
                "mean_kl": harm.kl,
                "perplexity": harm.perplexity,
                "perplexity_rise": harm.rise,
                "saved": { "weights": site.saved.weights, "cache_per_token": site.saved.cache_per_token },
            })
        };
        let reference = self.measured.reference;
        let layer = |(layer, kl)| json!({ "layer": layer, "mean_kl": kl });
        json!({
            "model": self.name,
            "passes": self.passes,
            "tokens": reference.tokens,
            "perplexity": reference.perplexity(),
            "sites": self.ranked().into_iter().map(site).collect::<Vec<_>>(),
            "layers": self.layers().into_iter().map(layer).collect::<Vec<_>>(),
        })
    }
}

fn upon(site: &Site) -> String {
    format!(" upon {}", site.pass)
}

fn saved(saved: Saved) -> String {
    let signed = |n: i64| format!("{}{}", if n < 0 { "-" } else { "" }, bytes(n.unsigned_abs()));
    match saved {
        Saved { weights: 0, cache_per_token: 0 } => "-".into(),
        Saved { weights: 0, cache_per_token } => format!("{}/token", signed(cache_per_token)),
        Saved { weights, .. } => signed(weights),
    }
}
