//! Recipes: how a model is quantized, as TOML.
//!
//! A [`Recipe`] stands for a pipeline, [`Recipe::pipeline`], and that text is what runs and what an artifact records. What a
//! recipe leaves out is as in an empty one, which is `rtn`; what it does not know is refused, with the place. The recipes
//! that are built in ([`RECIPES`]) spell everything out: a copy of one is where a recipe of one's own begins.
//!
//! | file | holds |
//! |---|---|
//! | `values` | the words, numbers and patterns of a recipe |
//! | `overrides` | what differs by name: of `keep` and `group` the first that matches decides, what they skip adds up |
//! | `steps` | the pipeline, each step with the reason for its place |
//! | `read` | errors with their places |

mod overrides;
mod read;
mod steps;
mod values;

#[cfg(test)]
mod tests;

use serde::Deserialize;

use crate::options::Positive;
use crate::quantize_weights::Group;
use crate::weights::Share;
use overrides::Override;
use values::{Codes, Form, Globs, Head, KvFit, Method, WeightFit};

/// A recipe that every build knows.
#[derive(Debug)]
pub struct BuiltIn {
    /// The name on the command line and in pipelines.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

/// Every recipe that is built in.
pub const RECIPES: [BuiltIn; 4] = [
    BuiltIn { name: "none", text: include_str!("recipes/none.toml") },
    BuiltIn { name: "rtn", text: include_str!("recipes/rtn.toml") },
    BuiltIn { name: "fireq", text: include_str!("recipes/fireq.toml") },
    BuiltIn { name: "paper", text: include_str!("recipes/paper.toml") },
];

impl Recipe {
    /// The recipe whose graphs have the same operations and types, and that needs no data: the methods that look at data choose
    /// other codes, and smoothing becomes part of weights and norms, but for what [`Recipe::scales_behind_rope`].
    #[must_use]
    pub fn structure(&self) -> Recipe {
        let method = match self.weights.method {
            Method::Search | Method::Gptq | Method::Paper => Method::Nearest,
            kept => kept,
        };
        let weights = Weights { method, ..self.weights.clone() };
        let fit = if method == self.weights.method { self.weights.fit } else { WeightFit::default() };
        let weights = Weights { fit, ..weights };
        Recipe { blocks: false, smooth: Smooth::default(), weights, ..self.clone() }
    }

    /// The recipe without what checkpoints cannot hold: scales behind rope, and keys and values in INT4, so that weights do
    /// not make up for errors that are not there.
    #[must_use]
    pub fn for_checkpoint(&self) -> Recipe {
        let smooth = Smooth { rope_post: Form::Off, ..self.smooth.clone() };
        Recipe { smooth, kv: Kv { fit: KvFit::Keep }, ..self.clone() }
    }

    /// Whether smoothing can leave scales on queries and keys behind rope.
    pub fn scales_behind_rope(&self) -> bool {
        self.smooth.rope_post != Form::Off
    }
}

impl BuiltIn {
    /// What the file says.
    pub fn recipe(&self) -> Recipe {
        Recipe::parse(self.text).expect("what is built in was tested")
    }
}

/// How a model is quantized.
///
/// ```
/// let text = r#"
///     [weights]
///     method = "search"
///     [[override]]
///     tensors = "*.down_proj.weight"
///     group = 64
/// "#;
/// assert_eq!(
///     fireq_passes::Recipe::parse(text).unwrap().pipeline(),
///     "quantize-kv,quantize-weights{group=128|*.down_proj.weight:64,method=search},quantize-activations"
/// );
/// let error = fireq_passes::Recipe::parse("[weights]\nmethod = \"serch\"").unwrap_err();
/// assert_eq!((error.line, error.column), (2, 10));
/// assert_eq!(error.hint.as_deref(), Some("did you mean `search`?"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Recipe {
    /// What it gives, in a line.
    pub summary: String,
    /// One block of the model after another, each for data that went through those before it as they are by then.
    blocks: bool,
    smooth: Smooth,
    weights: Weights,
    activations: Activations,
    kv: Kv,
    #[serde(rename = "override")]
    overrides: Vec<Override>,
}

/// Scales that make numbers easier to round.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Smooth {
    rope_pre: Form,
    rope_post: Form,
    linears: Form,
    paper: Paper,
}

/// The constants of the paper's forms.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Paper {
    alpha: Positive,
    beta: Positive,
    channels: u16,
    gate_up: Positive,
    down: Positive,
    v: Positive,
}

impl Default for Paper {
    fn default() -> Self {
        let [alpha, beta] = [Positive(8.0); 2];
        let [gate_up, down, v] = [0.0096, 0.015, 0.9].map(Positive);
        Paper { alpha, beta, channels: 8, gate_up, down, v }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Weights {
    method: Method,
    catch_up: Share,
    group: Group,
    fit: WeightFit,
    codes: Codes,
    keep: Globs,
    head: Head,
}

impl Default for Weights {
    fn default() -> Self {
        let keep = Globs::built_in("lm_head*|*embed_tokens*");
        let (method, catch_up) = (Method::Nearest, Share(0.5));
        let (fit, codes, head) = (WeightFit::Absmax, Codes::Keep, Head::Keep);
        Weights { method, catch_up, group: Group(128), fit, codes, keep, head }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Activations {
    quantize: bool,
}

impl Default for Activations {
    fn default() -> Self {
        Activations { quantize: true }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kv {
    fit: KvFit,
}
