//! What a weight is made of: constants, some of which may have no data, or none that is finite.

use std::sync::Arc;

use fireq_ir::{ConstData, Graph, Op, ValueId};

use super::ArtifactError;

/// The first number of an expression's constants that is not finite.
pub(super) fn non_finite(graph: &Graph, value: ValueId) -> Option<ArtifactError> {
    constants(graph, value).find_map(|(name, leaf, data)| {
        let element = data.first_non_finite(graph.ty(leaf).dtype)?;
        Some(ArtifactError::NonFinite { tensor: name.to_string(), element })
    })
}

pub(super) fn has_data(graph: &Graph, value: ValueId) -> bool {
    leaves(graph, value).into_iter().all(|leaf| match graph.op(leaf) {
        Op::Const { name } => graph.constants.get(name).is_some_and(|data| data.size().is_some()),
        _ => true,
    })
}

/// The constants that an expression is made of, as far as there is data.
pub(super) fn constants(
    graph: &Graph,
    value: ValueId,
) -> impl Iterator<Item = (&Arc<str>, ValueId, &ConstData)> {
    leaves(graph, value).into_iter().filter_map(|leaf| {
        let Op::Const { name } = graph.op(leaf) else { return None };
        Some((name, leaf, graph.constants.get(name)?))
    })
}

/// The values that an expression is made of.
fn leaves(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    let operands = graph.operands(value);
    if operands.is_empty() {
        vec![value]
    } else {
        operands.into_iter().flat_map(|v| leaves(graph, v)).collect()
    }
}
