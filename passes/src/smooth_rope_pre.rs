//! `smooth-rope-pre`: scales on keys, and their inverses on queries, that the two channels of a rope pair share and that
//! make keys easier to round to INT4 (N of FireQ section 5).
//!
//! Contract: where attention reads `q` and, appended to a cache, `k`, both turned by rope, `k` is multiplied by a scale per
//! channel behind the rope, and `q` by its inverse in every query head of the kv head. Both channels of a pair have the same
//! scale, so `fold-scales` moves it through the rope into the weights. It is an inverse power of the pair's largest or
//! root-mean-square length, the one of the least error of the attention's output under `quantize-kv{fit=clipped}`, on
//! calibration data. Fires when that error falls by 3 % or more, and neither keys nor queries are scaled behind the rope
//! already. Where a norm per head stands before the rope, all heads share a scale. Key caches that `keep` matches are left
//! alone. Reassociates.
//!
//! With `form=paper` the scale is `alpha` over the pair's largest length, without a search, and fires unless it is 1. It goes
//! below a scale that stands behind the ropes already (S of the paper), and is 1 on the channels that S scales, as in the paper.
//!
//! ```
//! let text = r#"graph "g" {
//!   %0 = input {name="q"} : f32[T,4]
//!   %1 = input {name="k"} : f32[T,4]
//!   %2 = input {name="positions"} : i32[T]
//!   %3 = const {name="spread", data=[1.0, 32.0, 1.0, 32.0]} : f32[4]
//!   %4 = scale %1, %3 : f32[T,4]
//!   %5 = const {name="inv_freq", data=[1.0, 0.5]} : f32[2]
//!   %6 = rope_table %2, %5 : f32[T,4]
//!   %7 = rope %0, %6 : f32[T,4]
//!   %8 = rope %4, %6 : f32[T,4]
//!   %9 = cache {name="k.0"} : f32[P,4]
//!   %10 = kv_append %9, %8 : f32[P+T,4]
//!   %11 = cache {name="v.0"} : f32[P,4]
//!   %12 = kv_append %11, %1 : f32[P+T,4]
//!   %13 = attention %7, %10, %12 {heads=1, kv_heads=1, scale=0.5, p=f32} : f32[T,4]
//!   return %13
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(text).unwrap();
//! assert_eq!(fireq_passes::pipeline("smooth-rope-pre").unwrap().run(&mut graph).unwrap(), 1);
//! assert_eq!(fireq_passes::pipeline("smooth-rope-pre").unwrap().run(&mut graph).unwrap(), 0);
//! ```

use crate::error::PipelineError;
use crate::options::Options;
use crate::smooth::key_site::Site;
use crate::smooth::keys::{Candidate, Form, POWERS, SmoothKeys};
use crate::smooth::paper::{FORM, KEEP, is_paper};
use crate::smooth::size::Size;
use crate::smooth_rope_post as post;
use crate::table::OptionInfo;

/// What can be set.
pub(crate) const OPTIONS: &[OptionInfo] = &[
    FORM,
    OptionInfo {
        name: "alpha",
        default: "8",
        doc: "the length that form=paper gives the longest key of each pair",
    },
    OptionInfo { name: "keep", default: "", doc: KEEP },
];

/// The pass.
pub(crate) fn build(options: &Options) -> Result<SmoothKeys, PipelineError> {
    let alpha = options.positive("alpha")?;
    let paper = Form::Paper(Box::new(move |site, keys| given(site, keys, alpha)));
    let search = Form::Search { candidates, instead: Some(post::candidates) };
    let form = if is_paper(options)? { paper } else { search };
    SmoothKeys::new("smooth-rope-pre", form, options)
}

/// The paper's N: `alpha` over the largest length of each pair, 1 where there is none or where S stands.
fn given(site: &Site, keys: &[f32], alpha: f32) -> Candidate {
    let sizes = pair_sizes(site, keys, Size::Largest);
    let behind = |i: usize| site.behind.as_ref().is_some_and(|s| s[i] != 1.0);
    let of = |(i, size): (usize, &f32)| if *size > 0.0 && !behind(i) { alpha / size } else { 1.0 };
    let scale = sizes.iter().enumerate().map(of).collect();
    Candidate { form: "paper".into(), constant: alpha, channels: None, scale }
}

fn candidates(site: &Site, keys: &[f32]) -> Vec<Candidate> {
    let of = |size: Size| {
        let sizes = pair_sizes(site, keys, size);
        POWERS.map(|power| Candidate {
            form: format!("{} of a pair to the power of -{power}", size.name()),
            constant: power,
            channels: None,
            scale: inverse_powers(&sizes, power),
        })
    };
    [Size::Largest, Size::Percentile99, Size::Rms].into_iter().flat_map(of).collect()
}

/// The size of the lengths of each rope pair, on both of its channels.
fn pair_sizes(site: &Site, keys: &[f32], size: Size) -> Vec<f32> {
    let half = site.head / 2;
    let lengths = |head: &[f32]| -> Vec<f32> {
        let pair = |i: usize| head[i].hypot(head[i + half]);
        (0..2 * half).map(|i| pair(i % half)).collect()
    };
    let rows: Vec<f32> = keys.chunks(site.head).flat_map(lengths).collect();
    site.sizes(size, &rows)
}

/// `size^−power` in units of their mean; 1 for channels without any size.
fn inverse_powers(sizes: &[f32], power: f32) -> Vec<f32> {
    let mean = sizes.iter().sum::<f32>() / sizes.len().max(1) as f32;
    sizes.iter().map(|size| if *size > 1e-6 * mean { (size / mean).powf(-power) } else { 1.0 }).collect()
}
