//! `fireq inspect`: what a model, an artifact or a file of text IR consists of.

use std::fs;
use std::path::Path;

use fireq::compile::CompileError;
use fireq::import::{Model, ModelConfig, import_shape, import_with};
use fireq::source::{Source, classify};
use fireq::summary::{Summary, summarize};
use fireq::view::{State, dot, page};
use fireq_ir::plan::lower;
use fireq_ir::text::print_graph;
use fireq_ir::{Graph, Observer, Ran, RunOptions, Stopped};
use serde_json::{Value, json};

use super::output::{bytes, emit, emit_json, write_file};
use crate::cli::Inspect;
use crate::failure::{Failure, Outcome};

/// Prints the graph, the plan, or a summary.
pub fn inspect(options: &Inspect) -> Outcome {
    let mut config = None;
    let mut of_model = |model: Model| {
        config = Some(model.config);
        model.graph
    };
    let (kind, graph) = match classify(&options.input)? {
        Source::ModelDir => ("model", of_model(import_with(&options.input, options.import.options())?)),
        Source::Config => ("configuration", of_model(shape_of(options)?)),
        Source::Ir => ("text IR", read_ir(options)?),
        Source::Artifact if options.dot || options.html.is_some() => (
            "artifact",
            super::opt::parse(&super::inspect_artifact::graph_text(&options.input)?, "its graph")?,
        ),
        Source::Artifact => return super::inspect_artifact::inspect(options),
    };
    if options.report.is_some() {
        let message = format!("`{}` is no artifact, and has no report", options.input.display());
        return Err(Failure::new(message).hint("`fireq compile --recipe fireq` makes one"));
    }
    if options.kernels {
        let message = format!("`{}` is no artifact, and has no kernels", options.input.display());
        return Err(Failure::new(message).hint("`fireq compile` makes one"));
    }
    let states = states(options, graph)?;
    if let Some(out) = &options.html {
        let page = page(&states, !options.no_stats);
        return write_file(out, |file| Ok(file.write_all(page.as_bytes())?));
    }
    let graph = &states.last().expect("a pipeline starts somewhere").graph;
    if options.ir || options.dot {
        return emit(&if options.dot { dot(graph) } else { print_graph(graph) });
    }
    if options.plan {
        let lowered = lower(graph).map_err(|e| {
            Failure::from_error(&e).hint("only a graph that every pass of a recipe has seen is sure to lower")
        })?;
        return emit(&fireq_ir::plan::print_plan(&lowered.plan));
    }
    let summary = summarize(graph);
    if options.json {
        emit_json(&as_json(kind, &graph.name, &summary, config.as_ref()))
    } else {
        emit(&as_text(kind, &graph.name, &summary, config.as_ref()))
    }
}

/// The graph as it is, and after each of the passes.
fn states(options: &Inspect, graph: Graph) -> Outcome<Vec<State>> {
    let pipeline = fireq_passes::pipeline(options.passes.as_deref().unwrap_or_default())?;
    let mut collect = Collect(vec![State { title: "import".into(), graph: graph.clone(), patches: vec![] }]);
    let mut graph = graph;
    match pipeline.run_observed(
        &mut graph,
        RunOptions { explain: true, ..RunOptions::default() },
        &mut collect,
    ) {
        Ok(_) => Ok(collect.0),
        Err(Stopped::Pass(failed)) => Err(CompileError::Pass(failed).into()),
        Err(Stopped::Observer(never)) => match never {},
    }
}

struct Collect(Vec<State>);

impl Observer for Collect {
    type Error = std::convert::Infallible;

    fn after(&mut self, ran: &Ran<'_>) -> Result<(), Self::Error> {
        self.0.push(State {
            title: ran.text.into(),
            graph: ran.after.clone(),
            patches: ran.patches.to_vec(),
        });
        Ok(())
    }
}

fn shape_of(options: &Inspect) -> Outcome<Model> {
    let dir = options.input.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(import_shape(dir, options.import.options())?)
}

fn read_ir(options: &Inspect) -> Outcome<Graph> {
    let path = options.input.display();
    let text = fs::read_to_string(&options.input).map_err(|e| {
        Failure::from_error(&e).within(format!("cannot read `{path}`")).hint("text IR is a UTF-8 text file")
    })?;
    super::opt::parse(&text, &format!("`{path}`"))
}

fn as_json(kind: &str, name: &str, summary: &Summary, config: Option<&ModelConfig>) -> Value {
    json!({
        "kind": kind,
        "name": name,
        "parameters": summary.parameters,
        "constant_bytes": summary.constant_bytes,
        "caches": summary.caches,
        "cache_bytes_per_token": summary.cache_bytes_per_token,
        "inputs": summary.inputs,
        "outputs": summary.outputs,
        "ops": summary.ops,
        "architecture": config.map(|config| config.family.architecture),
        "context": config.map(|config| config.context),
        "rope": config.map(|config| config.rope.describe()),
    })
}

fn as_text(kind: &str, name: &str, summary: &Summary, config: Option<&ModelConfig>) -> String {
    let ops: Vec<String> = summary.ops.iter().map(|(op, n)| format!("{op} {n}")).collect();
    format!(
        "{kind} `{name}`\n  parameters  {} in {}\n  KV cache    {} per token in {} caches\n  inputs      {}\n  outputs     {}\n  operations  {}\n{}",
        summary.parameters,
        bytes(summary.constant_bytes),
        bytes(summary.cache_bytes_per_token),
        summary.caches,
        summary.inputs.join(", "),
        summary.outputs.join(", "),
        ops.join(", "),
        config.map(of_config).unwrap_or_default(),
    )
}

/// What of a configuration the graph shows as numbers only.
fn of_config(config: &ModelConfig) -> String {
    format!("  context     {} tokens\n  rope        {}\n", config.context, config.rope.describe())
}
