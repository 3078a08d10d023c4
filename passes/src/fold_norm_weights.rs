//! `fold-norm-weights`: weights of norms into the linears that read them.
//!
//! Contract: `linear(rms_norm(x, w), W)` becomes `linear(rms_norm(x, 1), W·diag(w))`, for every linear that reads the
//! norm. Fires when all users of the norm are linears with plain constant weights, `w` covers all channels and is not
//! ones already. The product is rounded once to f32. Reassociates.
//!
//! ```
//! let before = r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="norm"} : bf16[4]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,4]
//!   %3 = const {name="w"} : bf16[8,4]
//!   %4 = linear %2, %3 : f32[T,8]
//!   return %4
//! }
//! "#;
//! let mut graph = fireq_ir::text::parse_graph(before).unwrap();
//! fireq_passes::pipeline("fold-norm-weights").unwrap().run(&mut graph).unwrap();
//! assert_eq!(fireq_ir::text::print_graph(&graph), r#"graph "g" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="norm.ones", data=[1.0, 1.0, 1.0, 1.0]} : f32[4]
//!   %2 = rms_norm %0, %1 {eps=1e-5} : f32[T,4]
//!   %3 = const {name="w"} : bf16[8,4]
//!   %4 = const {name="norm"} : bf16[4]
//!   %5 = scale %3, %4 : f32[8,4]
//!   %6 = linear %2, %5 : f32[T,8]
//!   return %6
//! }
//! "#);
//! ```

use fireq_ir::expression::{is_constant, leaf_name};
use fireq_ir::{ConstData, DType, Effect, Graph, Op, Pass, PassError, Patch, Shape, Type, ValueId};

use crate::pattern::{Names, is_ones};

/// The pass.
pub(crate) struct FoldNormWeights;

impl Pass for FoldNormWeights {
    fn id(&self) -> &'static str {
        "fold-norm-weights"
    }

    fn effect(&self) -> Effect {
        Effect::Reassociates
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        let mut names = Names::new(graph);
        graph.schedule().into_iter().filter_map(|value| site(graph, value, &mut names)).collect()
    }
}

fn site(graph: &Graph, norm: ValueId, names: &mut Names<'_>) -> Option<Result<Patch, PassError>> {
    let Op::RmsNorm { eps } = *graph.op(norm) else { return None };
    let [x, weight] = graph.operands(norm)[..] else { return None };
    let width = graph.ty(norm).shape.cols().fixed()?;
    let whole = graph.ty(weight).shape.cols().fixed() == Some(width);
    let users = graph.users(norm);
    let foldable = |linear: &ValueId| {
        let operands = graph.operands(*linear);
        *graph.op(*linear) == Op::Linear
            && operands[0] == norm
            && graph.ty(operands[1]).scheme.is_plain()
            && is_constant(graph, operands[1])
    };
    let fires = whole
        && is_constant(graph, weight)
        && !is_ones(graph, weight)
        && !users.is_empty()
        && users.iter().all(foldable)
        && !graph.outputs.contains(&norm);
    fires.then(|| {
        fold(graph, (x, weight, eps), &users, &names.fresh(&leaf_name(graph, weight), "ones"), width)
    })
}

fn fold(
    graph: &Graph,
    (x, weight, eps): (ValueId, ValueId, f32),
    linears: &[ValueId],
    ones: &str,
    width: usize,
) -> Result<Patch, PassError> {
    let mut patch = Patch::new(&*leaf_name(graph, weight));
    let data = ConstData::from_f32(&vec![1.0; width]);
    let ones = patch.constant(ones, Type::plain(DType::F32, Shape::vector(width)), data);
    let norm = patch.add(graph, Op::RmsNorm { eps }, &[x.into(), ones])?;
    for linear in linears {
        let scaled = patch.add(graph, Op::Scale, &[graph.operands(*linear)[1].into(), weight.into()])?;
        let folded = patch.add(graph, Op::Linear, &[norm, scaled])?;
        patch.replace(*linear, folded);
    }
    Ok(patch)
}
