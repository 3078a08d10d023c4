//! Every rule by which scales move has a case in `tests/ir/fold-scales` in which it moves one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fireq_ir::text::parse_and_verify;
use fireq_ir::{Observer, Ran, RunOptions};

#[derive(Default)]
struct Notes(String);

impl Observer for Notes {
    type Error = std::convert::Infallible;

    fn after(&mut self, ran: &Ran<'_>) -> Result<(), Self::Error> {
        self.0.extend(ran.patches.iter().flat_map(|patch| &patch.notes).map(|note| format!("{note}, ")));
        Ok(())
    }
}

#[test]
fn every_rule_moves_a_scale_in_a_case() {
    let mut notes = Notes::default();
    for case in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("ir/fold-scales")).unwrap() {
        let path = case.unwrap().path();
        if path.extension().is_none_or(|e| e != "ir") {
            continue;
        }
        let mut graph = parse_and_verify(&fs::read_to_string(&path).unwrap()).unwrap();
        let pipeline = fireq_passes::pipeline("fold-scales").unwrap();
        let options = RunOptions { explain: true, ..RunOptions::default() };
        assert!(pipeline.run_observed(&mut graph, options, &mut notes).is_ok());
    }
    let used: BTreeSet<&str> = notes.0.split([',', ':', ' ']).collect();
    let unused: Vec<String> =
        fireq_passes::scale_rules().into_iter().filter(|rule| !used.contains(rule.as_str())).collect();
    assert!(unused.is_empty(), "no case in tests/ir/fold-scales uses {unused:?}");
}
