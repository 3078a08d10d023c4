//! A report as a page.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Block, Report, Smoothing, part, short};
use crate::page::{Parts, page};

/// The page that shows a report: errors of all blocks, and of each block its sites and weights. Channels are shown in
/// buckets by their largest; nothing else is left out.
pub fn html(report: &Report) -> String {
    let parts = Parts {
        body: include_str!("page.html"),
        css: include_str!("page.css"),
        js: concat!(include_str!("plot.js"), include_str!("page.js")),
    };
    page(&parts, &report.model, &encode(report))
}

fn encode(report: &Report) -> Value {
    json!({
        "model": report.model,
        "recipe": report.recipe,
        "calibration": report.calibration,
        "blocks": report.blocks.iter().map(block).collect::<Vec<_>>(),
    })
}

fn block(block: &Block) -> Value {
    json!({
        "name": block.name,
        "label": part(&block.name),
        "error": block.error,
        "error_rtn": block.error_rtn,
        "stream_error": block.stream_error,
        "smoothing": block.smoothing.iter().map(smoothing).collect::<Vec<_>>(),
        "weights": block.weights.iter().map(|weight| labelled(&weight.name, weight)).collect::<Vec<_>>(),
        "kv": block.kv,
        "refused": block.refused.iter().map(|site| labelled(&site.site, site)).collect::<Vec<_>>(),
    })
}

/// What a report says of something, and the name that it is shown under.
fn labelled(name: &str, found: &impl Serialize) -> Value {
    let mut value = json!(found);
    value["label"] = short(name).into();
    value
}

fn smoothing(site: &Smoothing) -> Value {
    json!({
        "site": site.site,
        "label": short(&site.site),
        "form": site.form,
        "alpha": site.alpha,
        "beta": site.beta,
        "k": site.k,
        "tried": site.tried,
        "error_before": site.error_before,
        "error_after": site.error_after,
        "channels": site.absmax_before.len().max(site.absmax_after.len()),
        "before": curves(&site.absmax_before),
        "after": curves(&site.absmax_after),
    })
}

/// Magnitudes by channel, and the same sorted, the largest first.
fn curves(channels: &[f32]) -> Value {
    let mut sorted = channels.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    json!({ "channels": buckets(channels), "sorted": buckets(&sorted) })
}

/// Points of a curve: as many as a plot has room for.
const BUCKETS: usize = 256;

/// The largest of each of at most [`BUCKETS`] parts of nearly equal length, to three digits.
fn buckets(values: &[f32]) -> Vec<f64> {
    let count = values.len().min(BUCKETS);
    let part = |n: usize| &values[n * values.len() / count..(n + 1) * values.len() / count];
    (0..count).map(|n| rounded(part(n).iter().copied().fold(f32::NEG_INFINITY, f32::max))).collect()
}

fn rounded(x: f32) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_keep_the_largest_of_every_part() {
        assert_eq!(buckets(&[]), [0.0; 0]);
        assert_eq!(buckets(&[0.5, 1234.5]), [0.5, 1230.0]);
        let mut many = vec![1.0; 14_336];
        many[14_335] = 9.0;
        many[7_000] = 8.0;
        let found = buckets(&many);
        assert_eq!(found.len(), BUCKETS);
        let outliers: Vec<_> = found.iter().filter(|x| **x > 1.0).collect();
        assert_eq!(outliers, [&8.0, &9.0]);
        assert_eq!(found[255], 9.0);
        assert_eq!(buckets(&vec![2.0; 257]), [2.0; 256]);
    }

    #[test]
    fn sorted_curves_fall() {
        let curves = curves(&[1.0, 4.0, 2.0]);
        assert_eq!(curves, json!({ "channels": [1.0, 4.0, 2.0], "sorted": [4.0, 2.0, 1.0] }));
    }
}
