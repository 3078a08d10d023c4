//! Graphs as text.

use std::collections::BTreeMap;

use crate::interp::widen;
use crate::{Attr, ConstData, DType, Graph, Op, Quoted, ValueId};

/// The most elements of a constant that are printed; longer ones are elided to a hash.
const INLINE: usize = 8;

/// The canonical text of a graph. Equal graphs print equal bytes on every machine; invalid graphs print too.
pub fn print_graph(graph: &Graph) -> String {
    text(graph, Shown { inline: INLINE, hashes: true })
}

/// The text of a graph in which constants of up to `inline` elements have their data, and longer ones not even a hash,
/// which would take reading them: for graphs that are to be run again rather than compared.
pub fn print_standalone(graph: &Graph, inline: usize) -> String {
    text(graph, Shown { inline, hashes: false })
}

/// What is shown of constants.
#[derive(Clone, Copy)]
struct Shown {
    inline: usize,
    hashes: bool,
}

fn text(graph: &Graph, shown: Shown) -> String {
    let (lines, numbers) = numbered_lines(graph, shown);
    let body: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    let outputs: Vec<String> = graph.outputs.iter().map(|v| name(&numbers, *v)).collect();
    format!("graph {} {{\n{body}  return {}\n}}\n", Quoted(&graph.name), outputs.join(", "))
}

/// One printed line for each node, in schedule order.
pub fn print_lines(graph: &Graph) -> Vec<String> {
    numbered_lines(graph, Shown { inline: INLINE, hashes: true }).0
}

fn numbered_lines(graph: &Graph, shown: Shown) -> (Vec<String>, BTreeMap<ValueId, usize>) {
    let schedule = graph.schedule();
    let numbers: BTreeMap<ValueId, usize> = schedule.iter().copied().zip(0..).collect();
    (schedule.iter().map(|v| line(graph, *v, &numbers, shown)).collect(), numbers)
}

fn name(numbers: &BTreeMap<ValueId, usize>, value: ValueId) -> String {
    numbers.get(&value).map_or("%?".into(), |n| format!("%{n}"))
}

fn line(graph: &Graph, value: ValueId, numbers: &BTreeMap<ValueId, usize>, shown: Shown) -> String {
    let op = graph.op(value);
    let operands: Vec<String> = graph.operands(value).into_iter().map(|v| name(numbers, v)).collect();
    let mut attrs = op.attrs();
    if let Op::Const { name } = op {
        attrs
            .extend(graph.constants.get(name).and_then(|data| data_attr(data, graph.ty(value).dtype, shown)));
    }
    let mut text = format!("{} = {}", name(numbers, value), op.mnemonic());
    if !operands.is_empty() {
        text += &format!(" {}", operands.join(", "));
    }
    format!("{text}{} : {}", attrs_text(&attrs), graph.ty(value))
}

/// ` {name=value, …}`, or nothing.
pub(crate) fn attrs_text(attrs: &[(&str, Attr)]) -> String {
    let items: Vec<String> = attrs.iter().map(|(name, attr)| format!("{name}={attr}")).collect();
    if items.is_empty() { String::new() } else { format!(" {{{}}}", items.join(", ")) }
}

fn data_attr(data: &ConstData, dtype: DType, shown: Shown) -> Option<(&'static str, Attr)> {
    let whole =
        |bits: usize| bits <= shown.inline.saturating_mul(dtype.bits()) && bits.is_multiple_of(dtype.bits());
    let small = data.bytes().filter(|bytes| whole(bytes.len() * 8));
    let values = small.and_then(|bytes| inline(dtype, bytes)).filter(|v| v.iter().all(|x| x.is_finite()));
    match values {
        Some(values) => Some(("data", Attr::List(values))),
        None if !shown.hashes => None,
        None => data.hash().map(|hash| ("hash", Attr::Str(hash))),
    }
}

/// The elements as f32, where that keeps every bit.
fn inline(dtype: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    if dtype != DType::I32 {
        return widen(dtype, bytes);
    }
    let ints = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    ints.map(|i| (i.unsigned_abs() <= 1 << 24).then_some(i as f32)).collect()
}
