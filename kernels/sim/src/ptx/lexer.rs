//! Tokens of PTX text.

use super::ParseError;

/// A token; words keep their dots, so `ld.global.u32` and `%tid.x` are one word each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token<'a> {
    Word(&'a str),
    Int(u64),
    F32(u32),
    F64(u64),
    Text(&'a str),
    Mark(char),
    End,
}

/// A cursor over the tokens with one token of lookahead.
pub(crate) struct Lexer<'a> {
    rest: &'a str,
    /// Line of `rest`.
    scanned: u32,
    next: Token<'a>,
    /// Line of `next`.
    line: u32,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Result<Self, ParseError> {
        let mut lexer = Self { rest: text, scanned: 1, next: Token::End, line: 1 };
        lexer.advance()?;
        Ok(lexer)
    }

    pub fn peek(&self) -> Token<'a> {
        self.next
    }

    /// Line of the token that `peek` shows.
    pub fn line(&self) -> u32 {
        self.line
    }

    pub fn advance(&mut self) -> Result<Token<'a>, ParseError> {
        let token = self.next;
        self.skip_blanks()?;
        self.line = self.scanned;
        self.next = self.scan()?;
        Ok(token)
    }

    /// Whether a colon comes after the token that `peek` shows: then it is a label.
    pub fn followed_by_colon(&self) -> bool {
        self.rest.trim_start().starts_with(':')
    }

    /// Takes the token if it is this mark.
    pub fn take(&mut self, mark: char) -> Result<bool, ParseError> {
        let found = self.next == Token::Mark(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub fn expect(&mut self, mark: char) -> Result<(), ParseError> {
        if self.take(mark)? { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    pub fn word(&mut self) -> Result<&'a str, ParseError> {
        let Token::Word(word) = self.next else { return Err(self.unexpected("a name")) };
        self.advance()?;
        Ok(word)
    }

    pub fn int(&mut self) -> Result<u64, ParseError> {
        let Token::Int(value) = self.next else { return Err(self.unexpected("an integer")) };
        self.advance()?;
        Ok(value)
    }

    pub fn int32(&mut self) -> Result<u32, ParseError> {
        let line = self.line;
        u32::try_from(self.int()?).map_err(|_| ParseError::new(line, "the integer exceeds 32 bits"))
    }

    pub fn unexpected(&self, wanted: &str) -> ParseError {
        let found = match self.next {
            Token::Word(w) => format!("`{w}`"),
            Token::Mark(c) => format!("`{c}`"),
            Token::Int(i) => format!("`{i}`"),
            Token::F32(_) | Token::F64(_) => "a floating-point number".into(),
            Token::Text(t) => format!("\"{t}\""),
            Token::End => "the end of the text".into(),
        };
        ParseError::new(self.line, format!("expected {wanted}, found {found}"))
    }

    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        loop {
            let trimmed = self.rest.trim_start();
            self.consume(self.rest.len() - trimmed.len());
            if self.rest.starts_with("//") {
                self.consume(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let end = self
                    .rest
                    .find("*/")
                    .ok_or_else(|| ParseError::new(self.scanned, "the comment does not end"))?;
                self.consume(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn consume(&mut self, bytes: usize) -> &'a str {
        let (head, rest) = self.rest.split_at(bytes);
        self.scanned += head.bytes().filter(|b| *b == b'\n').count() as u32;
        self.rest = rest;
        head
    }

    fn scan(&mut self) -> Result<Token<'a>, ParseError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        if first.is_ascii_digit() {
            return self.scan_number();
        }
        if first == '"' {
            let end = self.rest[1..]
                .find('"')
                .ok_or_else(|| ParseError::new(self.scanned, "the string does not end"))?;
            let quoted = self.consume(end + 2);
            return Ok(Token::Text(&quoted[1..=end]));
        }
        let length = word_length(self.rest);
        if length > 0 {
            return Ok(Token::Word(self.consume(length)));
        }
        if "{}[]()<>,;:+-!@|=".contains(first) {
            self.consume(1);
            return Ok(Token::Mark(first));
        }
        Err(ParseError::new(self.scanned, format!("unexpected character {first:?}")))
    }

    fn scan_number(&mut self) -> Result<Token<'a>, ParseError> {
        let length = self.rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let fraction = self.rest[length..].strip_prefix('.').map_or(0, |t| {
            let digits = t.bytes().take_while(u8::is_ascii_alphanumeric).count();
            if digits > 0 { digits + 1 } else { 0 }
        });
        let text = self.consume(length + fraction);
        number(text).ok_or_else(|| ParseError::new(self.scanned, format!("`{text}` is not a number")))
    }
}

/// Length of the word at the start; `::` is part of a word, a single colon is not.
fn word_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        if b.is_ascii_alphanumeric() || b"_$%.".contains(&b) {
            i += 1;
        } else if b == b':' && i > 0 && bytes.get(i + 1) == Some(&b':') {
            i += 2;
        } else {
            break;
        }
    }
    i
}

fn number(text: &str) -> Option<Token<'static>> {
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f").filter(|h| h.len() == 8) {
        return u32::from_str_radix(hex, 16).ok().map(Token::F32);
    }
    if let Some(hex) = lower.strip_prefix("0d").filter(|h| h.len() == 16) {
        return u64::from_str_radix(hex, 16).ok().map(Token::F64);
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Token::Int);
    }
    if let Some(binary) = digits.strip_prefix("0b") {
        return u64::from_str_radix(binary, 2).ok().map(Token::Int);
    }
    if digits.contains(['.', 'e']) {
        return digits.parse::<f64>().ok().map(|v| Token::F64(v.to_bits()));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return u64::from_str_radix(&digits[1..], 8).ok().map(Token::Int);
    }
    digits.parse().ok().map(Token::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text).unwrap();
        std::iter::from_fn(|| Some(lexer.advance().unwrap()).filter(|t| *t != Token::End)).collect()
    }

    #[test]
    fn words_keep_dots_and_scopes_and_labels_end_at_the_colon() {
        use Token::{F32, Int, Mark, Word};
        assert_eq!(
            tokens("$L_1: st.shared::cta.b32 [%r1+-4], 0f3F800000; // x\n0x1F 017"),
            [
                Word("$L_1"),
                Mark(':'),
                Word("st.shared::cta.b32"),
                Mark('['),
                Word("%r1"),
                Mark('+'),
                Mark('-'),
                Int(4),
                Mark(']'),
                Mark(','),
                F32(0x3f80_0000),
                Mark(';'),
                Int(31),
                Int(15)
            ]
        );
    }

    #[test]
    fn errors_name_the_line() {
        let mut lexer = Lexer::new("a\nb\n \u{e9}").unwrap();
        lexer.advance().unwrap();
        assert_eq!(lexer.advance().unwrap_err().line, 3);
    }
}
