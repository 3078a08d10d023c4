//! `fireq opt`: passes on text IR.

use std::io::Read;

use fireq::bisect::Check;
use fireq::reproducer::pipeline_of;
use fireq_ir::Graph;
use fireq_ir::text::{parse_and_verify, print_graph};

use super::output::emit;
use super::{bisect, pipeline};
use crate::cli::Opt;
use crate::failure::{Failure, Outcome};

/// Prints the graph after the pipeline, or the patch that breaks it.
pub fn opt(options: &Opt) -> Outcome {
    let text = read(options)?;
    let mut graph = parse(&text, &name(options))?;
    let passes = options.passes.as_deref().or(pipeline_of(&text)).unwrap_or_default();
    let passes = fireq_passes::pipeline(passes)?;
    let command = options.bisect_command.clone().map(Check::Command);
    if let Some(check) = command.or(options.bisect.then_some(Check::Numerics)) {
        return bisect::bisect(&passes, &graph, &check);
    }
    pipeline::run(&options.run, &passes, &mut graph, |_, graph| emit(&print_graph(graph))).map(drop)
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
