//! Every family, rope type and odd size gives the logits of transformers: imported, and compiled without quantization.

mod references;

use std::collections::BTreeSet;

use fireq::import::{FAMILIES, Model, RopeScaling, import_with};
use fireq::interpreted::Interpreted;
use fireq::numerics::relative_error;
use fireq_runtime::Select;
use references::Reference;
use tempfile::TempDir;

fn imported(reference: &Reference) -> Model {
    let dir = TempDir::new().unwrap();
    reference.write(dir.path());
    import_with(dir.path(), reference.options()).unwrap()
}

#[test]
fn every_reference_is_reached() {
    for reference in Reference::all() {
        let model = imported(&reference);
        let found = Interpreted::new(model.graph).step(&reference.tokens, Select::All).unwrap();
        let last = &found[found.len() - reference.logits.len()..];
        let error = relative_error(&reference.logits, last);
        eprintln!("{}: relative error {error:.1e}; rope {}", reference.name, model.config.rope.describe());
        assert!(error <= 5e-6, "{}: relative error {error:.1e}", reference.name);
    }
}

#[test]
fn every_family_has_a_reference_and_every_rope_type_has() {
    let models: Vec<Model> = Reference::all().iter().map(imported).collect();
    let families: BTreeSet<&str> = models.iter().map(|model| model.config.family.architecture).collect();
    assert_eq!(families, FAMILIES.iter().map(|family| family.architecture).collect());
    let kind = |model: &Model| match model.config.rope.scaling {
        RopeScaling::None => "default",
        RopeScaling::Linear { .. } => "linear",
        RopeScaling::Dynamic { .. } => "dynamic",
        RopeScaling::Yarn { .. } => "yarn",
        RopeScaling::LongRope { long, .. } => ["longrope, short", "longrope, long"][usize::from(long)],
        RopeScaling::Llama3 { .. } => "llama3",
    };
    assert_eq!(models.iter().map(kind).collect::<BTreeSet<_>>().len(), 7);
}

#[test]
fn a_window_caps_the_context() {
    for (name, context) in [("mistral", 16), ("ministral", 16), ("phi3", 20), ("cwm", 24), ("llama", 64)] {
        assert_eq!(imported(&Reference::named(name)).config.context, context, "{name}");
    }
}
