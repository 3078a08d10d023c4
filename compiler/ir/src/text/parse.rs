//! Text to graphs.

use std::collections::BTreeMap;
use std::ops::Range;

use thiserror::Error;

use super::ParseError;
use super::cursor::{Attrs, Cursor, Parsed};
use super::lex::Token;
use crate::verify::{VerifyErrors, verify};
use crate::{Attr, ConstData, Graph, Op, Type, ValueId};

/// Parses a graph. Types stand as declared: [`verify`] judges them.
pub fn parse_graph(text: &str) -> Result<Graph, ParseError> {
    parse_with_places(text).map(|(graph, _)| graph)
}

/// A text that is not a valid graph.
#[derive(Debug, Error)]
pub enum TextError {
    /// It does not parse.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It parses to a graph that breaks invariants; the first is shown in place.
    #[error("{0}")]
    Verify(Box<ParseError>, #[source] VerifyErrors),
}

/// Parses a graph and verifies it; what is wrong is shown on the line that says it.
pub fn parse_and_verify(text: &str) -> Result<Graph, TextError> {
    let (graph, places) = parse_with_places(text)?;
    let Err(errors) = verify(&graph) else { return Ok(graph) };
    let schedule = graph.schedule();
    let place = errors.0.first().and_then(|e| e.node).and_then(|n| places.get(schedule.get(n)?).cloned());
    let place = place.unwrap_or_else(|| text.rfind("return").map_or(0..0, |at| at..at + 6));
    let reason = errors.0.first().map_or_else(String::new, |e| e.reason.clone());
    Err(TextError::Verify(Box::new(ParseError::new(text, place, reason)), errors))
}

fn parse_with_places(text: &str) -> Parsed<(Graph, BTreeMap<ValueId, Range<usize>>)> {
    let mut c = Cursor::new(text)?;
    c.keyword("graph")?;
    let mut graph = Graph::new(&c.string()?);
    c.mark('{')?;
    let mut values = BTreeMap::new();
    let mut places = BTreeMap::new();
    while matches!(c.peek(), Token::Value(_)) {
        let start = c.span().start;
        let value = node(&mut c, &mut graph, &mut values)?;
        places.insert(value, start..c.span().start.min(start + line_length(text, start)));
    }
    c.keyword("return")?;
    loop {
        let value = operand(&mut c, &values)?;
        graph.outputs.push(value);
        if !c.eat(',') {
            break;
        }
    }
    c.mark('}')?;
    c.end()?;
    Ok((graph, places))
}

fn line_length(text: &str, start: usize) -> usize {
    let line = text[start..].lines().next().unwrap_or("");
    line.split("//").next().unwrap_or("").trim_end().len()
}

fn operand(c: &mut Cursor<'_>, values: &BTreeMap<usize, ValueId>) -> Parsed<ValueId> {
    let span = c.span();
    let number = c.value()?;
    values
        .get(&number)
        .copied()
        .ok_or_else(|| c.error(span, format!("%{number} is not defined before this line")))
}

fn node(c: &mut Cursor<'_>, graph: &mut Graph, values: &mut BTreeMap<usize, ValueId>) -> Parsed<ValueId> {
    let defined = c.span();
    let number = c.value()?;
    if values.contains_key(&number) {
        return Err(c.error(defined, format!("%{number} is defined twice")));
    }
    c.mark('=')?;
    let span = c.span();
    let mnemonic = c.word("an operation")?;
    let mut operands = vec![];
    while matches!(c.peek(), Token::Value(_)) || (!operands.is_empty() && c.eat(',')) {
        operands.push(operand(c, values)?);
    }
    let attrs = c.attrs()?;
    let op = c.op(&mnemonic, span, &attrs, if mnemonic == "const" { &["data", "hash"] } else { &[] })?;
    c.mark(':')?;
    let ty = c.ty()?;
    if let Op::Const { name } = &op {
        let data = constant(c, &attrs, &ty)?;
        if !matches!((&data, graph.constants.get(name)), (ConstData::Elided { .. }, Some(_))) {
            graph.constants.insert(name.clone(), data);
        }
    }
    let value = graph.push(op, ty, &operands);
    values.insert(number, value);
    Ok(value)
}

fn constant(c: &Cursor<'_>, attrs: &Attrs, ty: &Type) -> Parsed<ConstData> {
    let mut hash = None;
    for (name, attr, span) in attrs {
        match (name.as_str(), attr) {
            ("data", Attr::List(values)) => {
                return ConstData::from_numbers(ty.dtype, values)
                    .ok_or_else(|| c.error(span.clone(), format!("data does not fit {} exactly", ty.dtype)));
            }
            ("hash", Attr::Str(text)) => hash = Some(text.clone()),
            ("data", _) => return Err(c.error(span.clone(), "data is a list such as [1.0, 2.0]")),
            ("hash", _) => return Err(c.error(span.clone(), "hash is a string")),
            _ => {}
        }
    }
    Ok(ConstData::Elided { hash })
}
