//! What pipelines and passes refuse, and how they say it.

use fireq_passes::{PASSES, pipeline};

fn message(text: &str) -> String {
    pipeline(text).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn names_are_answered_with_the_nearest() {
    assert_eq!(
        message("quantize-weigths"),
        "unknown pass `quantize-weigths`; did you mean `quantize-weights`?"
    );
    assert_eq!(
        message("quantize-weights{grup=64}"),
        "pass `quantize-weights` has no option `grup`; did you mean `group`?"
    );
    assert_eq!(message("cse{group=64}"), "pass `cse` has no option `group`");
}

#[test]
fn values_are_refused_with_a_reason() {
    let refused = |value: &str, reason: &str| {
        let expected = format!("pass `quantize-weights`: option `group` is `{value}`; {reason}");
        assert_eq!(message(&format!("quantize-weights{{group={value}}}")), expected);
    };
    refused("many", "a whole number is wanted");
    for value in ["0", "48", "33"] {
        refused(
            value,
            "scales cover a multiple of 32 channels, the run of codes that kernels decode at once",
        );
    }
}

#[test]
fn a_fit_is_one_of_a_few_words() {
    let wanted = "`absmax`, `signed` or `clipped` is wanted";
    for pass in ["quantize-weights", "quantize-kv"] {
        let refused = |value: &str| message(&format!("{pass}{{fit={value}}}"));
        let start = format!("pass `{pass}`: option `fit` is ");
        assert_eq!(refused("clip"), format!("{start}`clip`; {wanted}; did you mean `clipped`?"));
        assert_eq!(refused("7"), format!("{start}`7`; {wanted}"));
    }
    assert_eq!(pipeline("quantize-kv{fit=absmax}").unwrap().to_string(), "quantize-kv");
    assert_eq!(pipeline("quantize-kv{fit=signed}").unwrap().to_string(), "quantize-kv{fit=signed}");
}

#[test]
fn broken_lists_say_where() {
    let broken = |text: &str, column: usize, reason: &str| {
        assert_eq!(message(text), format!("`{text}`, column {column}: {reason}"));
    };
    broken("cse,", 5, "a pass is missing between commas");
    broken("cse,,cse", 5, "a pass is missing between commas");
    broken("cse,quantize-weights{group=64", 21, "`{` without `}`");
    broken("cse},cse", 4, "`}` without `{`");
    broken("quantize-weights{keep={}}", 23, "braces cannot be nested");
    broken("cse,quantize-weights{group}", 22, "an option is `name=value`");
    broken("quantize-weights{group=64,keep}", 27, "an option is `name=value`");
    broken("quantize-weights{group=64}x", 27, "text after `}` or `)`");
    broken("quantize-weights{keep=ä}x", 25, "text after `}` or `)`");
    broken("fixpoint(cse", 9, "`(` without `)`");
    broken("cse)", 4, "`)` without `(`");
    broken("repeat(cse)", 7, "only `fixpoint` and `blocks` take passes in parentheses");
    broken("fixpoint(cse)dce", 14, "text after `}` or `)`");
    broken(&"fixpoint(".repeat(100), 17 * 9, "too many groups in each other");
}

#[test]
fn blanks_do_not_matter_and_nothing_is_an_empty_pipeline() {
    assert!(pipeline(" ").unwrap().passes().is_empty());
    let passes = pipeline(" quantize-weights { group = 64 , } , fixpoint( cse , dce ) ").unwrap();
    let ids: Vec<&str> = passes.passes().iter().map(|p| p.id()).collect();
    assert_eq!(ids, ["quantize-weights", "cse", "dce"]);
    // Printed, options that are not the defaults are all that is left.
    assert_eq!(passes.to_string(), "quantize-weights{group=64},fixpoint(cse,dce)");
    assert_eq!(pipeline(&passes.to_string()).unwrap().to_string(), passes.to_string());
}

#[test]
fn every_pass_builds_with_its_defaults_and_answers_to_its_id() {
    for info in PASSES {
        let pipeline = pipeline(info.id).unwrap();
        let passes = pipeline.passes();
        assert_eq!((passes[0].id(), passes[0].effect()), (info.id, info.effect));
    }
}
