//! The pipeline that a recipe stands for.

use super::Recipe;
use super::values::{Form, Head, KvFit, Method, Skip};
use crate::table::PASSES;

/// A step of a pipeline, and the reason for its place.
type Step = (String, &'static str);

/// What smoothing leaves behind ropes and before linears goes into weights and norms.
const FOLD: &str = "fold-scales";

impl Recipe {
    /// The pipeline as text, options only where they are not the defaults.
    pub fn pipeline(&self) -> String {
        let steps: Vec<String> = self.steps().into_iter().map(|(step, _)| step).collect();
        let steps = steps.join(",");
        let steps = if self.in_blocks() { format!("blocks({steps})") } else { steps };
        let head = self.head().map(|(step, _)| step);
        [steps].into_iter().filter(|steps| !steps.is_empty()).chain(head).collect::<Vec<_>>().join(",")
    }

    /// The step behind these, whether they run in blocks or not.
    pub fn head(&self) -> Option<(String, &'static str)> {
        let options = [("keep", self.kept_head())];
        let why = "behind all others: it needs no data, and what it takes is what weights for INT4 leave";
        (self.weights.head == Head::E4m3).then(|| (step("quantize-head", &options), why))
    }

    /// Whether the steps run on one block after another.
    pub fn in_blocks(&self) -> bool {
        self.blocks && !self.steps().is_empty()
    }

    /// The steps of the pipeline, each with the reason for its place.
    pub fn steps(&self) -> Vec<(String, &'static str)> {
        let mut steps = self.keys();
        steps.extend(self.linears());
        let (weights, kv) = (self.weights(), self.kv());
        if matches!(self.weights.method, Method::Search | Method::Gptq) {
            steps.extend(kv.map(|step| {
                (step, "before weights, which are chosen for what it gives and make up for its errors")
            }));
            steps.extend(weights);
        } else {
            steps.extend(weights);
            steps.extend(kv.map(|step| {
                (step, "depends on neither; last, it reads best in dumps: the linears stand as they stay")
            }));
        }
        steps
    }

    /// Scales of keys.
    fn keys(&self) -> Vec<Step> {
        let [pre_why, fold_why, post_why] = self.keys_whys();
        let pre = self.rope_pre().map(|step| [(step, pre_why), (FOLD.into(), fold_why)]);
        let (pre, post) = (pre.into_iter().flatten(), self.rope_post().map(|step| (step, post_why)));
        if self.both_as_in_paper() {
            post.into_iter().chain(pre).collect()
        } else {
            pre.chain(post).collect()
        }
    }

    fn both_as_in_paper(&self) -> bool {
        [self.smooth.rope_pre, self.smooth.rope_post] == [Form::Paper; 2]
    }

    /// Why scales of pairs, fold-scales behind them, and scales of channels stand where they do.
    fn keys_whys(&self) -> [&'static str; 3] {
        if self.both_as_in_paper() {
            return [
                "leaves out the channels that have scales already",
                "what stands behind ropes becomes one scale",
                "first: the paper finds its channels in keys that nothing was done to",
            ];
        }
        [
            "pairs before channels: what a pair shares costs nothing once it is folded",
            "into the weights of keys and queries",
            "what pairs do not share stays behind rope",
        ]
    }

    fn rope_pre(&self) -> Option<String> {
        let (form, alpha) = (self.smooth.rope_pre, self.smooth.paper.alpha.0);
        let options =
            [("form", form.to_string()), ("alpha", alpha.to_string()), ("keep", self.skipped(Skip::RopePre))];
        (form != Form::Off).then(|| step("smooth-rope-pre", &used(form, &options)))
    }

    fn rope_post(&self) -> Option<String> {
        let (form, paper) = (self.smooth.rope_post, &self.smooth.paper);
        let options = [
            ("form", form.to_string()),
            ("beta", paper.beta.0.to_string()),
            ("channels", paper.channels.to_string()),
            ("keep", self.skipped(Skip::RopePost)),
        ];
        (form != Form::Off).then(|| step("smooth-rope-post", &used(form, &options)))
    }

    /// Scales of the inputs of linears.
    fn linears(&self) -> Vec<Step> {
        let (form, paper) = (self.smooth.linears, &self.smooth.paper);
        let options = [
            ("form", form.to_string()),
            ("gate-up", paper.gate_up.0.to_string()),
            ("down", paper.down.0.to_string()),
            ("v", paper.v.0.to_string()),
            ("codes", self.weights.codes.to_string()),
            ("keep", self.skipped(Skip::Linears)),
        ];
        if form == Form::Off {
            return vec![];
        }
        vec![
            (
                step("smooth-linears", &used(form, &options)),
                "after keys, so that a search judges with keys as they will be",
            ),
            (FOLD.into(), "into norms and rows of weights, before anything is rounded"),
        ]
    }

    /// Weights, and what follows them.
    fn weights(&self) -> Vec<Step> {
        let weights = &self.weights;
        let mut options = vec![
            ("group", self.group()),
            ("fit", weights.fit.to_string()),
            ("method", weights.method.to_string()),
            ("codes", weights.codes.to_string()),
            ("keep", self.kept()),
        ];
        if weights.method == Method::Gptq {
            options.push(("catch-up", weights.catch_up.0.to_string()));
        }
        if weights.method == Method::Keep {
            return vec![];
        }
        let why = "INT4 weights are what marks a linear as quantized for the next step";
        let mut steps = vec![(step("quantize-weights", &options), why)];
        if self.activations.quantize {
            let options = [("keep", self.skipped(Skip::Activations))];
            let why = "only where a linear has INT4 weights; the head keeps both its operands";
            steps.push((step("quantize-activations", &options), why));
        }
        steps
    }

    fn kv(&self) -> Option<String> {
        let options = [("fit", self.kv.fit.to_string()), ("keep", self.skipped(Skip::Kv))];
        (self.kv.fit != KvFit::Keep).then(|| step("quantize-kv", &options))
    }
}

/// The options that a form has: constants are the paper's.
fn used(form: Form, options: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let used = |name: &str| form == Form::Paper || ["form", "codes", "keep"].contains(&name);
    options.iter().filter(|(name, _)| used(name)).cloned().collect()
}

/// A pass with those of its options that are not as they are by default.
fn step(id: &str, options: &[(&str, String)]) -> String {
    let info = PASSES.iter().find(|pass| pass.id == id).expect("recipes name passes of the table");
    let default =
        |name: &str| info.options.iter().find(|option| option.name == name).map(|option| option.default);
    let set = options.iter().filter(|(name, value)| default(name) != Some(value));
    let items: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
    if items.is_empty() { id.into() } else { format!("{id}{{{}}}", items.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pipeline;
    use super::*;

    #[test]
    fn the_head_is_a_step_behind_all_others() {
        let head = "[weights]\nhead = \"e4m3\"\n";
        let rtn = "quantize-weights,quantize-activations,quantize-kv";
        assert_eq!(pipeline(head), format!("{rtn},quantize-head"));
        assert_eq!(pipeline(&format!("blocks = true\n{head}")), format!("blocks({rtn}),quantize-head"));
        let alone = format!("{head}method = \"keep\"\n[kv]\nfit = \"keep\"\n");
        assert_eq!(pipeline(&alone), "quantize-head");
        assert_eq!(pipeline(&format!("blocks = true\n{alone}")), "quantize-head");
        assert_eq!(pipeline("[weights]\nhead = \"keep\""), rtn);
        let recipe = Recipe::parse(head).unwrap();
        assert_eq!(recipe.structure().pipeline(), format!("{rtn},quantize-head"));
        let kept = format!("{alone}[[override]]\ntensors = \"lm_head*\"\nkeep = true\n");
        assert_eq!(pipeline(&kept), "quantize-head{keep=lm_head*}");
    }
}
