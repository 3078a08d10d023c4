//! The words, numbers and patterns of a recipe.

use std::fmt;

use serde::Deserialize;

/// A set of words, each with its spelling in recipes and in pipelines.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$default:ident])? $word:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
        pub(super) enum $name { $($(#[$default])? #[serde(rename = $text)] $word),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$word => $text),+ })
            }
        }
    };
}

words!(
    /// How scales for smoothing come about.
    Form { #[default] Off = "off", Search = "search", Paper = "paper" }
);

words!(
    /// How codes of weights are chosen.
    Method {
        Keep = "keep",
        #[default]
        Nearest = "nearest",
        Paper = "paper",
        Search = "search",
        Gptq = "gptq",
    }
);

words!(
    /// How scales of weights are chosen, for the nearest integers.
    WeightFit { #[default] Absmax = "absmax", Signed = "signed", Clipped = "clipped" }
);

words!(
    /// What becomes of codes that a checkpoint has already.
    Codes { #[default] Keep = "keep", Requantize = "requantize" }
);

words!(
    /// What the weight of the linear that gives logits becomes.
    Head { #[default] Keep = "keep", E4m3 = "e4m3" }
);

words!(
    /// How scales of keys and values are chosen.
    KvFit { Keep = "keep", #[default] Absmax = "absmax", Signed = "signed", Clipped = "clipped" }
);

words!(
    /// Passes that can leave a site alone.
    Skip {
        #[default]
        RopePre = "smooth-rope-pre",
        RopePost = "smooth-rope-post",
        Linears = "smooth-linears",
        Activations = "quantize-activations",
        Kv = "quantize-kv",
    }
);

/// Patterns of names, separated by `|`, that a pipeline can hold as they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Globs(String);

/// What has a meaning in pipelines, or none in names.
const RESERVED: &[char] = &['{', '}', '(', ')', ',', ':', '=', '!', '"', '\\'];

impl Globs {
    pub fn built_in(text: &str) -> Self {
        Globs(text.into())
    }

    /// Each pattern; none where the text is empty.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.split('|').map(str::trim).filter(|pattern| !pattern.is_empty())
    }
}

impl TryFrom<String> for Globs {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let foreign = |c: &char| RESERVED.contains(c) || c.is_control();
        if let Some(c) = text.chars().find(foreign) {
            return Err(format!(
                "names of tensors and caches have no {c:?}; `*` matches anything, `|` separates"
            ));
        }
        if !text.is_empty() && text.split('|').any(|pattern| pattern.trim().is_empty()) {
            return Err("a pattern is missing beside `|`".into());
        }
        Ok(Globs(text))
    }
}
