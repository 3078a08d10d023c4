//! `fireq opt`: passes on text IR.

use std::io::Read;

use fireq::compile::transform;
use fireq::numerics::difference;
use fireq_ir::text::{parse_and_verify, print_graph};
use fireq_ir::{Effect, Graph, Pass};

use super::output::emit;
use crate::cli::Opt;
use crate::failure::{Failure, Outcome};

/// Prints the graph after the pipeline.
pub fn opt(options: &Opt) -> Outcome {
    let before = parse(&read(options)?, &name(options))?;
    let passes = fireq_passes::pipeline(&options.passes)?;
    let mut graph = before.clone();
    transform(&mut graph, &passes, usize::MAX, |_, _, _| Ok(()))?;
    if options.verify_numerics {
        check(&before, &graph, &passes)?;
    }
    emit(&print_graph(&graph))
}

/// Parses and verifies text IR; what is wrong is shown in its place.
pub fn parse(text: &str, name: &str) -> Outcome<Graph> {
    parse_and_verify(text).map_err(|e| {
        Failure::new(e.to_string())
            .within(format!("{name} is not valid text IR"))
            .hint("`fireq inspect MODEL_DIR --ir` prints a graph in the form that is read")
    })
}

fn name(options: &Opt) -> String {
    if options.input.as_os_str() == "-" { "stdin".into() } else { format!("`{}`", options.input.display()) }
}

fn read(options: &Opt) -> Outcome<String> {
    let mut text = String::new();
    let result = if options.input.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(&options.input)
    };
    result.map_err(|e| {
        Failure::from_error(&e)
            .within(format!("cannot read {}", name(options)))
            .hint("give a file of text IR, or - to read stdin")
    })
}

/// The tolerance is that of the passes together, and never more than that of a lossy one.
fn check(before: &Graph, after: &Graph, passes: &[Box<dyn Pass>]) -> Outcome {
    let allowed = passes.iter().map(|p| p.effect().tolerance()).sum::<f64>().min(Effect::Lossy.tolerance());
    let found = difference(before, after).map_err(|e| {
        Failure::from_error(&e)
            .within("the graphs cannot be run on random data")
            .hint("check the graph with `fireq opt`")
    })?;
    eprintln!("numerics: relative error {found:.3e}, allowed {allowed:.3e}");
    if found <= allowed {
        return Ok(());
    }
    let effects: Vec<String> =
        passes.iter().map(|p| format!("{} ({})", p.id(), Effect::name(p.effect()))).collect();
    let message = format!("outputs differ by a relative error of {found:.3e}, allowed is {allowed:.3e}");
    Err(Failure::new(message)
        .hint(format!("run fewer of the passes to find the wrong one: {}", effects.join(", "))))
}
