//! `smooth-rope-post`: scales on keys, and their inverses on queries, for channels that outgrow the other of their pair.
//! They do not commute with rope and stay behind it (S of FireQ section 5).
//!
//! Contract: as of `smooth-rope-pre`, but the channels with the largest magnitudes, and the others of their pairs, are
//! multiplied by an inverse power of their magnitude over the head's median; the rest by 1. Number of channels and power
//! are searched in the same way. `fuse-rope-scaling` makes the scale part of the rope before it. Fires when the error of the
//! attention's output falls by 3 % or more, and nothing is scaled behind the rope already. Key caches that `keep` matches are
//! left alone. Reassociates.
//!
//! With `form=paper` the `channels` largest channels and the others of their pairs are multiplied by `beta` over their own
//! magnitude, without a search; fires unless all of it is 1. The paper finds them in keys without N, and N is 1 on them:
//! `smooth-rope-post{form=paper}` comes before `smooth-rope-pre{form=paper}`, which then leaves these channels out. Behind an N
//! that is part of the weights, what S is measured on holds it, so that it cancels: S·N is `beta` over the magnitude without N.
//!
//! ```
//! let text = r#"graph "g" {
//!   %0 = input {name="q"} : f32[T,4]
//!   %1 = input {name="k"} : f32[T,4]
//!   %2 = input {name="positions"} : i32[T]
//!   %3 = const {name="spread", data=[1.0, 1.0, 1.0, 32.0]} : f32[4]
//!   %4 = scale %1, %3 : f32[T,4]
//!   %5 = const {name="inv_freq", data=[1.0, 0.001]} : f32[2]
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
//! assert_eq!(fireq_passes::pipeline("smooth-rope-post").unwrap().run(&mut graph).unwrap(), 1);
//! assert_eq!(fireq_passes::pipeline("smooth-rope-post").unwrap().run(&mut graph).unwrap(), 0);
//! ```

use crate::error::PipelineError;
use crate::options::Options;
use crate::smooth::key_site::Site;
use crate::smooth::keys::{Candidate, Form, POWERS, SmoothKeys};
use crate::smooth::paper::{FORM, KEEP, is_paper};
use crate::smooth::size::Size;
use crate::table::OptionInfo;

/// What can be set.
pub(crate) const OPTIONS: &[OptionInfo] = &[
    FORM,
    OptionInfo {
        name: "beta",
        default: "8",
        doc: "the size that form=paper gives the largest key in a channel",
    },
    OptionInfo {
        name: "channels",
        default: "8",
        doc: "the largest channels of a head, which form=paper scales",
    },
    OptionInfo { name: "keep", default: "", doc: KEEP },
];

/// The pass.
pub(crate) fn build(options: &Options) -> Result<SmoothKeys, PipelineError> {
    let (beta, channels) = (options.positive("beta")?, options.number("channels")?);
    let paper = Form::Paper(Box::new(move |site, keys| given(site, keys, beta, channels)));
    let form = if is_paper(options)? { paper } else { Form::Search { candidates, instead: None } };
    SmoothKeys::new("smooth-rope-post", form, options)
}

/// The paper's S; nothing where keys are scaled behind the rope already.
fn given(site: &Site, keys: &[f32], beta: f32, channels: usize) -> Candidate {
    let of = |head: &[f32]| top(head, channels, |size| beta / size);
    let scale = match site.behind {
        Some(_) => vec![1.0; site.kv_heads * site.head],
        None => site.sizes(Size::Largest, keys).chunks(site.head).flat_map(of).collect(),
    };
    Candidate { form: "paper".into(), constant: beta, channels: Some(channels), scale }
}

/// Channels of a head that have scales of their own, besides those of their pairs.
const CHANNELS: [usize; 4] = [2, 4, 8, 16];

pub(crate) fn candidates(site: &Site, keys: &[f32]) -> Vec<Candidate> {
    let sizes = site.sizes(Size::Largest, keys);
    let of = |count: usize| {
        POWERS.map(|power| Candidate {
            form: format!("{count} channels and their pairs to the power of -{power}"),
            constant: power,
            channels: Some(count),
            scale: sizes.chunks(site.head).flat_map(|head| towards_median(head, count, power)).collect(),
        })
    };
    CHANNELS.into_iter().filter(|count| 2 * count <= site.head).flat_map(of).collect()
}

/// The `count` largest channels of a head and the others of their pairs down towards the median, each by its own size.
fn towards_median(head: &[f32], count: usize, power: f32) -> Vec<f32> {
    let mut falling = head.to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    let median = falling[head.len() / 2];
    top(head, count, |size| if median > 0.0 { (size / median).powf(-power) } else { 1.0 })
}

/// `scale` of their sizes for the `count` largest channels of a head and the others of their pairs, 1 for the rest.
fn top(head: &[f32], count: usize, scale: impl Fn(f32) -> f32) -> Vec<f32> {
    let half = head.len() / 2;
    let mut order: Vec<usize> = (0..head.len()).collect();
    order.sort_by(|a, b| head[*b].total_cmp(&head[*a]));
    let chosen = &order[..count.min(order.len())];
    let of = |i: usize| {
        let pair = (i + half) % (2 * half);
        let scaled = (chosen.contains(&i) || chosen.contains(&pair)) && head[i] > 0.0;
        if scaled { scale(head[i]) } else { 1.0 }
    };
    (0..head.len()).map(of).collect()
}
