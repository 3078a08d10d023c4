//! `smooth-rope-post`: scales on keys, and their inverses on queries, for channels that outgrow the other of their pair.
//! They do not commute with rope and stay behind it (S of FireQ section 5).
//!
//! Contract: as of `smooth-rope-pre`, but the channels with the largest magnitudes, and the others of their pairs, are
//! multiplied by an inverse power of their magnitude over the head's median; the rest by 1. Number of channels and power
//! are searched in the same way. `fuse-rope-scaling` makes the scale part of the rope before it. Fires when the error of the
//! attention's output falls by 3 % or more, and nothing is scaled behind the rope already. Reassociates.
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

use crate::options::Options;
use crate::smooth::keys::{Candidate, POWERS, Site, SmoothKeys, share, sizes};

/// The pass.
pub(crate) fn build(options: &Options) -> SmoothKeys {
    SmoothKeys {
        id: "smooth-rope-post",
        candidates,
        instead: None,
        calibration: options.calibration().clone(),
    }
}

/// Channels of a head that have scales of their own, besides those of their pairs.
const CHANNELS: [usize; 4] = [2, 4, 8, 16];

pub(crate) fn candidates(site: &Site, keys: &[f32]) -> Vec<Candidate> {
    let mut sizes = sizes(site, keys, f32::max);
    if site.shared {
        share(&mut sizes, site.head);
    }
    let of = |count: usize| {
        POWERS.map(|power| Candidate {
            form: format!("{count} channels and their pairs to the power of -{power}"),
            power,
            channels: Some(count),
            scale: sizes.chunks(site.head).flat_map(|head| top(head, count, power)).collect(),
        })
    };
    CHANNELS.into_iter().filter(|count| 2 * count <= site.head).flat_map(of).collect()
}

/// The `count` largest channels of a head and the others of their pairs down towards the median, each by its own size.
fn top(head: &[f32], count: usize, power: f32) -> Vec<f32> {
    let half = head.len() / 2;
    let mut order: Vec<usize> = (0..head.len()).collect();
    order.sort_by(|a, b| head[*b].total_cmp(&head[*a]));
    let median = head[order[half.min(order.len() - 1)]];
    let chosen = &order[..count.min(order.len())];
    let of = |i: usize| {
        let pair = (i + half) % (2 * half);
        let scaled = (chosen.contains(&i) || chosen.contains(&pair)) && head[i] > 0.0 && median > 0.0;
        if scaled { (head[i] / median).powf(-power) } else { 1.0 }
    };
    (0..head.len()).map(of).collect()
}
