//! The predictions that diverge most from a reference, for people to read.

use fireq::evaluate::Divergence;
use fireq::tokens::{Parts, Tokens, TokensError};
use serde::Serialize;

use super::output::table;

/// A token of the vocabulary.
#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    /// How likely the model found it, where it is a model's likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
}

/// A divergence with its texts.
#[derive(Serialize)]
pub struct Row {
    token: usize,
    line: usize,
    column: usize,
    context: String,
    actual: Token,
    reference: Token,
    model: Token,
    kl: f64,
    nll_rise: f64,
}

/// Tokens of context that are shown.
const CONTEXT: usize = 8;
/// Characters of it.
const WIDTH: usize = 32;

/// Looks up the texts of divergences in the text that was predicted.
pub fn rows(
    list: &[Divergence],
    text: &str,
    parts: &Parts,
    tokens: &Tokens,
) -> Result<Vec<Row>, TokensError> {
    list.iter().map(|divergence| row(divergence, text, parts, tokens)).collect()
}

fn row(found: &Divergence, text: &str, parts: &Parts, tokens: &Tokens) -> Result<Row, TokensError> {
    let index = found.place.index;
    let (line, column) = line_and_column(text.as_bytes(), parts.offsets[index]);
    let token = |id, probability| tokens.decode(&[id]).map(|text| Token { id, text, probability });
    Ok(Row {
        token: index,
        line,
        column,
        context: tokens.decode(&parts.ids[index - found.place.context.min(CONTEXT)..index])?,
        actual: token(parts.ids[index], None)?,
        reference: token(found.reference.0, Some(found.reference.1))?,
        model: token(found.model.0, Some(found.model.1))?,
        kl: found.kl,
        nll_rise: found.rise,
    })
}

/// Both from 1, in characters; `offset` may lie inside a character.
fn line_and_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let lines = before.split(|byte| *byte == b'\n');
    let continues = |byte: &&u8| **byte & 0xC0 == 0x80;
    let last = lines.clone().next_back().unwrap_or_default();
    (lines.count(), last.len() - last.iter().filter(continues).count() + 1)
}

/// A table of a line each; nothing for no rows.
pub fn as_text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = ["KL", "NLL rise", "line:column", "context", "actual", "reference", "model"].map(String::from);
    let cells: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    format!("worst tokens\n{}", table(&cells, 4))
}

fn cells(row: &Row) -> [String; 7] {
    [
        format!("{:.3}", row.kl),
        format!("{:+.3}", row.nll_rise),
        format!("{}:{}", row.line, row.column),
        ending(&row.context),
        cell(&row.actual),
        cell(&row.reference),
        cell(&row.model),
    ]
}

/// The last characters of a context, on one line.
fn ending(context: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.into() };
    let text: Vec<char> = context.chars().map(escaped).collect::<String>().chars().collect();
    text[text.len().saturating_sub(WIDTH)..].iter().collect()
}

fn cell(token: &Token) -> String {
    match token.probability {
        Some(probability) => format!("{:?} {:.1} %", token.text, probability * 100.0),
        None => format!("{:?}", token.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = "aé\nbü c".as_bytes();
        let found: Vec<_> = [0, 3, 4, 7, 99].map(|offset| line_and_column(text, offset)).into();
        assert_eq!(found, [(1, 1), (1, 3), (2, 1), (2, 3), (2, 5)]);
        assert_eq!(line_and_column(text, 2), (1, 3), "inside é");
    }

    #[test]
    fn the_table_is_aligned_and_each_row_a_line() {
        let token = |text: &str, probability| Token { id: 7, text: text.into(), probability };
        let row = |context: &str, kl| Row {
            token: 3,
            line: 1,
            column: 12,
            context: context.into(),
            actual: token(" cat", None),
            reference: token("\n", Some(0.5)),
            model: token(" a", Some(0.25)),
            kl,
            nll_rise: -0.5,
        };
        let text = as_text(&[row("saw a", 12.0), row("and then, after a very long day\n", 0.25)]);
        let expected = "\
worst tokens
      KL  NLL rise  line:column                           context  actual  reference    model
  12.000    -0.500         1:12                             saw a  \" cat\"  \"\\n\" 50.0 %  \" a\" 25.0 %
   0.250    -0.500         1:12  nd then, after a very long day\\n  \" cat\"  \"\\n\" 50.0 %  \" a\" 25.0 %
";
        assert_eq!(text, expected);
        assert_eq!(as_text(&[]), "");
    }
}
