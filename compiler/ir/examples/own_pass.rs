//! A pass of one's own on a graph that is read from text, seen at work and checked with the interpreter:
//!
//!     cargo run -p fireq-ir --example own_pass [FILE.ir]
//!
//! A step of a sequence that only wants some of its rows can drop the others before an element-wise operation instead of behind it.

use std::collections::BTreeMap;
use std::error::Error;

use fireq_ir::interp::{Tensor, empty_caches, interpret};
use fireq_ir::text::{parse_and_verify, print_graph};
use fireq_ir::{
    DType, DimBindings, Effect, Graph, Observer, Op, Pass, PassError, Patch, Pipeline, Ran, RunOptions, Step,
    Stopped,
};

const TEXT: &str = r#"graph "example" {
  %0 = input {name="x"} : f32[T,8]
  %1 = input {name="rows"} : i32[L]
  %2 = silu %0 : f32[T,8]
  %3 = silu %2 : f32[T,8]
  %4 = gather %3, %1 : f32[L,8]
  return %4
}
"#;

/// `gather(silu(x), rows)` becomes `silu(gather(x, rows))`.
struct GatherFirst;

impl Pass for GatherFirst {
    fn id(&self) -> &'static str {
        "gather-first"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut patches = vec![];
        for value in graph.schedule() {
            if *graph.op(value) != Op::Gather {
                continue;
            }
            let [silu, rows] = [0, 1].map(|slot| graph.operands(value)[slot]);
            // Whoever else wants the activated rows keeps them, and nothing would be saved.
            if *graph.op(silu) != Op::Silu || graph.users(silu).len() > 1 {
                continue;
            }
            let mut patch = Patch::new("rows");
            let gathered = patch.add(graph, Op::Gather, &[graph.operands(silu)[0].into(), rows.into()])?;
            let activated = patch.add(graph, Op::Silu, &[gathered])?;
            patch.replace(value, activated);
            patches.push(patch);
        }
        Ok(patches)
    }
}

/// Notes what passes did.
struct Log(Vec<String>);

impl Observer for Log {
    type Error = std::convert::Infallible;

    fn after(&mut self, ran: &Ran<'_>) -> Result<(), Self::Error> {
        self.0.push(format!("{}: {} patches", ran.text, ran.patches.len()));
        Ok(())
    }
}

/// The graph behind the pass, and what was noted. It is verified before, by parsing, and after.
fn rewrite(text: &str) -> Result<(Graph, Graph, Vec<String>), Box<dyn Error>> {
    let before = parse_and_verify(text)?;
    let (mut after, mut log) = (before.clone(), Log(vec![]));
    let pipeline = Pipeline(vec![Step::Pass(Box::new(GatherFirst), "gather-first".into())]);
    match pipeline.run_observed(&mut after, RunOptions::default(), &mut log) {
        Ok(_) => Ok((before, after, log.0)),
        Err(Stopped::Pass(failed)) => Err(failed),
        Err(Stopped::Observer(never)) => match never {},
    }
}

/// The first output on inputs that differ from element to element.
fn output(graph: &Graph) -> Result<Vec<f32>, Box<dyn Error>> {
    let sizes: DimBindings = [("T", 6), ("L", 3), ("P", 0)].map(|(name, size)| (name.into(), size)).into();
    let mut inputs = BTreeMap::new();
    for value in graph.schedule() {
        let Op::Input { name } = graph.op(value) else { continue };
        let shape = &graph.ty(value).shape;
        let [rows, cols] = [shape.rows(), shape.cols()].map(|dim| dim.resolve(&sizes));
        let cols = cols.ok_or("a size has another name than T, L or P")?;
        let count = if shape.0.len() == 1 { cols } else { cols * rows.unwrap_or(1) };
        let tensor = match graph.ty(value).dtype {
            DType::I32 => Tensor::from_i32(&(0..count as i32).rev().collect::<Vec<_>>()),
            _ => Tensor::from_rows((0..count).map(|n| (n as f32 * 0.7).sin()).collect(), cols),
        };
        inputs.insert(name.to_string(), tensor);
    }
    Ok(interpret(graph, &inputs, &empty_caches(graph))?.outputs[0].to_f32())
}

fn main() -> Result<(), Box<dyn Error>> {
    let text = std::env::args().nth(1).map_or(Ok(TEXT.to_string()), std::fs::read_to_string)?;
    let (before, after, log) = rewrite(&text)?;
    println!("{}\n{}", log.join("\n"), print_graph(&after));
    let same = output(&before)? == output(&after)?;
    println!("outputs are {}", if same { "the same, bit for bit" } else { "different" });
    Ok(())
}

#[test]
fn rows_are_gathered_first_and_outputs_stay_what_they_are() {
    let (before, after, log) = rewrite(TEXT).unwrap();
    assert_eq!(log, ["gather-first: 2 patches"]);
    let lines = ["%2 = gather %0, %1 : f32[L,8]", "%3 = silu %2 : f32[L,8]", "%4 = silu %3 : f32[L,8]"];
    assert!(print_graph(&after).contains(&lines.join("\n  ")), "{}", print_graph(&after));
    assert_eq!(output(&before).unwrap(), output(&after).unwrap());
}
