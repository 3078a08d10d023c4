//! Text to tokens, each with the bytes it came from.

use std::ops::Range;

use super::ParseError;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A word: names of operations, attributes, dtypes, symbols.
    Word(String),
    /// `%` and a number.
    Value(usize),
    /// Digits, perhaps with sign, point and exponent, as written.
    Number(String),
    /// A quoted string, unescaped.
    Text(String),
    /// Any of `{}[]<>=,:+`.
    Mark(char),
    /// The end of the text.
    End,
}

impl Token {
    /// How errors call the token.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(w) => format!("`{w}`"),
            Token::Value(n) => format!("`%{n}`"),
            Token::Number(n) => format!("`{n}`"),
            Token::Text(_) => "a string".into(),
            Token::Mark(c) => format!("`{c}`"),
            Token::End => "the end of the text".into(),
        }
    }
}

/// All tokens of a text, the last being [`Token::End`]. Blanks and `//` comments separate tokens.
pub(crate) fn lex(text: &str) -> Result<Vec<(Token, Range<usize>)>, ParseError> {
    let mut tokens = vec![];
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if text[at..].starts_with("//") {
            at += text[at..].find('\n').unwrap_or(text.len() - at);
            continue;
        }
        let (token, length) = one(text, at, c)?;
        at += length;
        tokens.push((token, start..at));
    }
    tokens.push((Token::End, text.len()..text.len()));
    Ok(tokens)
}

fn one(text: &str, at: usize, c: char) -> Result<(Token, usize), ParseError> {
    let rest = &text[at..];
    match c {
        '"' => string(text, at),
        '%' => {
            let digits = prefix(&rest[1..], |c| c.is_ascii_digit());
            let number = digits.parse().map_err(|_| {
                ParseError::new(text, at..at + 1 + digits.len(), "a value is `%` and a number")
            })?;
            Ok((Token::Value(number), 1 + digits.len()))
        }
        '{' | '}' | '[' | ']' | '<' | '>' | '=' | ',' | ':' | '+' => Ok((Token::Mark(c), 1)),
        '-' | '0'..='9' => number(text, at),
        c if c.is_ascii_alphabetic() || c == '_' => {
            let word = prefix(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            Ok((Token::Word(word.into()), word.len()))
        }
        c => Err(ParseError::new(
            text,
            at..at + c.len_utf8(),
            format!("unexpected character `{}`", c.escape_debug()),
        )),
    }
}

fn number(text: &str, at: usize) -> Result<(Token, usize), ParseError> {
    let rest = &text[at..];
    let signed_exponent = |i: usize| i > 0 && matches!(rest.as_bytes()[i - 1], b'e' | b'E');
    let belongs = |(i, c): (usize, char)| {
        c.is_ascii_digit()
            || matches!(c, '.' | 'e' | 'E')
            || ("+-".contains(c) && (i == 0 || signed_exponent(i)))
    };
    let length = rest.char_indices().take_while(|p| belongs(*p)).count();
    let digits = &rest[..length];
    if digits.parse::<f64>().is_err() {
        return Err(ParseError::new(text, at..at + length.max(1), format!("`{digits}` is not a number")));
    }
    Ok((Token::Number(digits.into()), length))
}

fn prefix(text: &str, keep: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !keep(c)).unwrap_or(text.len())]
}

fn string(text: &str, at: usize) -> Result<(Token, usize), ParseError> {
    let mut out = String::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(out), i + 2)),
            '\n' => break,
            '\\' => out.push(escape(&mut chars).ok_or_else(|| {
                ParseError::new(text, at + 1 + i..at + 3 + i, "unknown escape")
                    .with_hint(Some(r#"write \", \\, \n, \t or \u{…}"#.into()))
            })?),
            c => out.push(c),
        }
    }
    Err(ParseError::new(text, at..at + 1, "the string does not end on its line"))
}

fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    match chars.next()?.1 {
        c @ ('"' | '\\') => Some(c),
        'n' => Some('\n'),
        't' => Some('\t'),
        'u' => {
            let hex: String = chars.map(|(_, c)| c).take_while(|c| *c != '}').collect();
            char::from_u32(u32::from_str_radix(hex.strip_prefix('{')?, 16).ok()?)
        }
        _ => None,
    }
}
