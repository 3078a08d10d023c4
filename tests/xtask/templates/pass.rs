//! `new-pass`: a sum of a value with itself as a multiplication by two.
//!
//! Contract: say what becomes what, when it fires, when it does not, and what it may do to the numbers. This one:
//! `add(x, x)` becomes `scale(x, 2)`, with the same bits. Exact.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,2]
//!   %1 = add %0, %0 : f32[T,2]
//!   return %1
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("new-pass").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,2]
//!   %1 = const {name="two.scale", data=[2.0, 2.0]} : f32[2]
//!   %2 = scale %0, %1 : f32[T,2]
//!   return %2
//! }
//! "#);
//! ```

use fireq_ir::{ConstData, DType, Effect, Graph, Op, Pass, PassError, Patch, Shape, Type, ValueId};

use crate::pattern::Names;

/// The pass.
pub(crate) struct NewPass;

impl Pass for NewPass {
    fn id(&self) -> &'static str {
        "new-pass"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut names = Names::new(graph);
        graph.schedule().into_iter().filter_map(|value| site(graph, value, &mut names)).collect()
    }
}

/// Where the pass fires.
fn site(graph: &Graph, value: ValueId, names: &mut Names<'_>) -> Option<Result<Patch, PassError>> {
    let [a, b] = graph.operands(value)[..] else { return None };
    let width = graph.ty(value).shape.cols().fixed()?;
    (*graph.op(value) == Op::Add && a == b)
        .then(|| rewrite(graph, value, a, &names.fresh("two", "scale"), width))
}

/// What it does there: new nodes, and the values that they replace.
fn rewrite(graph: &Graph, value: ValueId, x: ValueId, name: &str, width: usize) -> Result<Patch, PassError> {
    let mut patch = Patch::new(name);
    let ty = Type::plain(DType::F32, Shape::vector(width));
    let two = patch.constant(name, ty, ConstData::from_f32(&vec![2.0; width]));
    let scaled = patch.add(graph, Op::Scale, &[x.into(), two])?;
    patch.replace(value, scaled);
    Ok(patch)
}
