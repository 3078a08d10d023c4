//! What recipes stand for and what they refuse. Values are those of the text, errors those of its places.

use super::*;

pub(super) fn pipeline(text: &str) -> String {
    let pipeline = Recipe::parse(text).unwrap_or_else(|e| panic!("{e}")).pipeline();
    let built = crate::pipeline(&pipeline).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(built.to_string(), pipeline, "not in canonical form");
    pipeline
}

#[test]
fn the_built_in_ones_are_these_pipelines() {
    let expected = [
        ("none", ""),
        ("rtn", "quantize-weights,quantize-activations,quantize-kv"),
        (
            "fireq",
            "blocks(smooth-rope-pre,fold-scales,smooth-rope-post,smooth-linears,fold-scales,quantize-kv{fit=clipped},\
             quantize-weights{method=gptq},quantize-activations)",
        ),
        (
            "paper",
            "blocks(smooth-rope-post{form=paper},smooth-rope-pre{form=paper},fold-scales,smooth-linears{form=paper},\
             fold-scales,quantize-weights{method=paper},quantize-activations,quantize-kv)",
        ),
    ];
    for ((name, text), built_in) in expected.iter().zip(&RECIPES) {
        assert_eq!((*name, *text), (built_in.name, &*pipeline(built_in.text)));
        assert_eq!(crate::named_pipeline(name).unwrap(), *text);
    }
}

#[test]
fn an_empty_recipe_is_rtn() {
    let rtn = Recipe { summary: String::new(), ..RECIPES[1].recipe() };
    assert_eq!(Recipe::parse("").unwrap(), rtn);
}

/// What a recipe spells out is a key somewhere in it.
#[test]
fn the_built_in_ones_spell_out_every_key() {
    let keys = |text: &str| -> Vec<String> {
        let key = |line: &str| line.split_once(" =").map(|(key, _)| key.trim_start_matches("# ").to_string());
        text.lines()
            .filter_map(|line| key(line).or_else(|| line.starts_with('[').then(|| line.into())))
            .collect()
    };
    let all = keys(RECIPES[0].text);
    for key in [
        "summary", "blocks", "[smooth]", "rope-pre", "gate-up", "method", "head", "quantize", "tensors",
        "skip",
    ] {
        assert!(all.iter().any(|known| known == key), "{key}");
    }
    assert!(RECIPES.iter().all(|recipe| keys(recipe.text) == all));
}

#[test]
fn the_example_of_overrides_is_one() {
    let rtn = RECIPES[1].text;
    let example = &rtn[rtn.find("# [[override]]").unwrap()..];
    let text: String = example.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    assert_eq!(
        pipeline(&text.replace("#\n", "")),
        "quantize-weights{group=128|*.down_proj.weight:64,\
         keep=*.0.mlp.down_proj.weight|*.31.mlp.down_proj.weight|lm_head*|*embed_tokens*},\
         quantize-activations{keep=*.down_proj.weight},quantize-kv{keep=k.0}"
    );
}

#[test]
fn sections_become_steps_with_options() {
    let off = "[weights]\nmethod = \"keep\"\n[kv]\nfit = \"keep\"\n";
    assert_eq!(pipeline(off), "");
    assert_eq!(pipeline(&format!("blocks = true\n{off}")), "");
    assert_eq!(pipeline("[activations]\nquantize = false"), "quantize-weights,quantize-kv");
    assert_eq!(
        pipeline("[weights]\nkeep = \"\""),
        "quantize-weights{keep=},quantize-activations,quantize-kv"
    );
    let smooth = |lines: &str| pipeline(&format!("{off}[smooth]\n{lines}"));
    assert_eq!(smooth("rope-pre = \"search\""), "smooth-rope-pre,fold-scales");
    assert_eq!(smooth("rope-post = \"paper\""), "smooth-rope-post{form=paper}");
    assert_eq!(smooth("linears = \"search\"\n[smooth.paper]\nv = 0.5"), "smooth-linears,fold-scales");
    assert_eq!(
        smooth("linears = \"paper\"\n[smooth.paper]\ngate-up = 1\nv = 0.5"),
        "smooth-linears{form=paper,gate-up=1,v=0.5},fold-scales"
    );
    assert_eq!(
        smooth("rope-pre = \"search\"\nrope-post = \"paper\"\n[smooth.paper]\nbeta = 1\nchannels = 3"),
        "smooth-rope-pre,fold-scales,smooth-rope-post{form=paper,beta=1,channels=3}"
    );
    assert_eq!(
        smooth("rope-pre = \"paper\"\nrope-post = \"paper\"\n[smooth.paper]\nalpha = 2.5"),
        "smooth-rope-post{form=paper},smooth-rope-pre{form=paper,alpha=2.5},fold-scales"
    );
}

fn overrides(list: &[&str]) -> String {
    pipeline(&list.iter().map(|one| format!("[[override]]\n{one}\n")).collect::<String>())
}

#[test]
fn the_first_override_with_a_key_decides_it() {
    let rest = "quantize-activations,quantize-kv";
    assert_eq!(
        overrides(&["tensors = \"a\"\ngroup = 32", "tensors = \"*|b\"\ngroup = 64"]),
        format!("quantize-weights{{group=128|a:32|*:64|b:64}},{rest}")
    );
    assert_eq!(
        overrides(&["tensors = \"*.3.down\"\nkeep = false", "tensors = \"*.down\"\nkeep = true"]),
        format!("quantize-weights{{keep=!*.3.down|*.down|lm_head*|*embed_tokens*}},{rest}")
    );
}

#[test]
fn a_pass_skips_wherever_an_override_says_so() {
    let skip = "tensors = \"k.3\"\nskip = [\"quantize-kv\", \"smooth-rope-pre\"]";
    let more = "tensors = \"k.*\"\nskip = [\"quantize-kv\"]";
    let start = "quantize-weights,quantize-activations,quantize-kv";
    assert_eq!(overrides(&[skip, more]), format!("{start}{{keep=k.3|k.*}}"));
    let smooth = format!("[smooth]\nrope-pre = \"search\"\n[[override]]\n{skip}");
    assert_eq!(pipeline(&smooth), format!("smooth-rope-pre{{keep=k.3}},fold-scales,{start}{{keep=k.3}}"));
}

/// Line, column, message and hint of the error.
fn refused(text: &str) -> (usize, usize, String, String) {
    let error = Recipe::parse(text).unwrap_err();
    (error.line, error.column, error.message, error.hint.unwrap_or_default())
}

#[test]
fn what_is_not_known_is_refused_with_its_place_and_what_is_near() {
    let (line, column, message, hint) = refused("blocks = true\n[weights]\ngruop = 64\n");
    assert_eq!((line, column, &*hint), (3, 1, "did you mean `group`?"));
    assert!(message.starts_with("unknown field `gruop`, expected one of `method`, `catch-up`"), "{message}");
    let (line, column, message, hint) = refused("[weights]\nhead = \"e4m4\"");
    assert_eq!((line, column, &*hint), (2, 8, "did you mean `e4m3`?"), "{message}");
    let (line, _, _, hint) = refused("[weights]\nhaed = \"keep\"");
    assert_eq!((line, &*hint), (2, "did you mean `head`?"));
    let (line, column, _, hint) = refused("[smooth]\nlinears = \"papr\"");
    assert_eq!((line, column, &*hint), (2, 11, "did you mean `paper`?"));
    let (line, _, _, hint) = refused("[[override]]\ntensor = \"*\"\nkeep = true");
    assert_eq!((line, &*hint), (2, "did you mean `tensors`?"));
    let (line, _, _, hint) = refused("[[override]]\ntensors = \"*\"\nskip = [\n\"quantise-kv\"]");
    assert_eq!((line, &*hint), (4, "did you mean `quantize-kv`?"));
    let (line, _, _, hint) = refused("[weigths]");
    assert_eq!((line, &*hint), (1, "did you mean `weights`?"));
}

#[test]
fn values_are_refused_with_their_places() {
    let value = |text: &str, line: usize, column: usize, reason: &str| {
        let (l, c, message, _) = refused(text);
        assert_eq!((l, c), (line, column), "{text}: {message}");
        assert!(message.contains(reason), "{text}: {message}");
    };
    value("[weights]\ngroup = 48", 2, 9, "a multiple of 32");
    value("[weights]\ngroup = -1", 2, 9, "expected usize");
    value("[smooth.paper]\nalpha = 0", 2, 9, "a positive number is wanted");
    value("[smooth.paper]\nv = nan", 2, 5, "a positive number is wanted");
    value("[smooth.paper]\nchannels = 99999", 2, 12, "expected u16");
    value("blocks = 1", 1, 10, "expected a boolean");
    value("[weights]\nkeep = \"a,b\"", 2, 8, "have no ','");
    value("[weights]\nkeep = \"a||b\"", 2, 8, "a pattern is missing beside `|`");
    value("[weights]\nfit = \"signed\"\nmethod = \"gptq\"", 1, 1, "`weights.fit` is for");
    value("[[override]]\nkeep = true", 1, 1, "missing field `tensors`");
    value("\n[[override]]\ntensors = \"a\"", 2, 1, "wants one of `keep`, `group` and `skip`");
    value("[[override]]\ntensors = \"a\"\nskip = []", 1, 1, "wants one of");
    value("[[override]]\ntensors = \"\"\nkeep = true", 1, 1, "without a pattern");
    value("[[override]]\ntensors = \"a\"\nkeep = true\ngroup = 32", 1, 1, "not both");
    value("blocks = true\nblocks = true", 2, 1, "duplicate key");
    value(&" ".repeat((1 << 20) + 1), 1, 1, "1048577 bytes are no recipe");
}

#[test]
fn without_data_a_recipe_has_the_same_operations_and_no_choices() {
    let structure = |name: &str| {
        let recipe = RECIPES.iter().find(|recipe| recipe.name == name).unwrap().recipe();
        (recipe.structure().pipeline(), recipe.scales_behind_rope())
    };
    let rounded = "quantize-weights,quantize-activations,quantize-kv";
    assert_eq!(structure("fireq"), (format!("{rounded}{{fit=clipped}}"), true));
    assert_eq!(structure("paper"), (rounded.into(), true));
    assert_eq!(structure("rtn"), (rounded.into(), false));
    assert_eq!(structure("none"), (String::new(), false));
}

#[test]
fn checkpoints_have_no_scales_behind_rope_and_no_codes_in_caches() {
    let pipeline = |text| Recipe::parse(text).unwrap().for_checkpoint().pipeline();
    let fireq = "blocks(smooth-rope-pre,fold-scales,smooth-linears,fold-scales,quantize-weights{method=gptq},quantize-activations)";
    assert_eq!(pipeline(RECIPES[2].text), fireq);
    assert_eq!(pipeline(""), "quantize-weights,quantize-activations");
}
