//! A place among tokens, and the pieces that graphs and plans share: types, formats, attributes.

use std::collections::BTreeSet;
use std::ops::Range;

use super::lex::lex;
use super::{ParseError, nearest};
use crate::{Attr, AttrError, DTYPES, DType, Dim, Format, Level, OPS, Op, Per, Scheme, Shape, Type};

pub(crate) use super::lex::Token;

pub(crate) type Parsed<T> = Result<T, ParseError>;

/// An attribute's name, value and place.
pub(crate) type Attrs = Vec<(String, Attr, Range<usize>)>;

/// A place among the tokens of a text.
pub(crate) struct Cursor<'t> {
    text: &'t str,
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
}

impl<'t> Cursor<'t> {
    pub fn new(text: &'t str) -> Parsed<Self> {
        Ok(Cursor { text, tokens: lex(text)?, at: 0 })
    }

    pub fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    /// Where the next token is.
    pub fn span(&self) -> Range<usize> {
        self.tokens[self.at].1.clone()
    }

    pub fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span, message)
    }

    pub fn expected<T>(&self, what: &str) -> Parsed<T> {
        Err(self.error(self.span(), format!("expected {what}, found {}", self.peek().describe())))
    }

    /// Takes the next token if it is `mark`.
    pub fn eat(&mut self, mark: char) -> bool {
        let found = *self.peek() == Token::Mark(mark);
        if found {
            self.next();
        }
        found
    }

    pub fn mark(&mut self, mark: char) -> Parsed<()> {
        if self.eat(mark) { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    pub fn word(&mut self, what: &str) -> Parsed<String> {
        if !matches!(self.peek(), Token::Word(_)) {
            return self.expected(what);
        }
        let Token::Word(word) = self.next() else { unreachable!("just looked") };
        Ok(word)
    }

    pub fn keyword(&mut self, keyword: &str) -> Parsed<()> {
        if *self.peek() != Token::Word(keyword.into()) {
            return self.expected(&format!("`{keyword}`"));
        }
        self.next();
        Ok(())
    }

    pub fn string(&mut self) -> Parsed<String> {
        match self.peek().clone() {
            Token::Text(text) => {
                self.next();
                Ok(text)
            }
            _ => self.expected("a name in quotes"),
        }
    }

    pub fn value(&mut self) -> Parsed<usize> {
        match *self.peek() {
            Token::Value(n) => {
                self.next();
                Ok(n)
            }
            _ => self.expected("a value such as `%0`"),
        }
    }

    pub fn count(&mut self) -> Parsed<usize> {
        let (token, span) = (self.peek().clone(), self.span());
        let Token::Number(digits) = token else { return self.expected("a whole number") };
        self.next();
        digits.parse().map_err(|_| self.error(span, format!("`{digits}` is not a whole number that fits")))
    }

    pub fn end(&mut self) -> Parsed<()> {
        if *self.peek() == Token::End { Ok(()) } else { self.expected("the end of the text") }
    }

    /// Items between `open` and `close`, separated by commas.
    pub fn list<T>(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        self.mark(open)?;
        let mut items = vec![];
        while !self.eat(close) {
            if !items.is_empty() {
                self.mark(',')?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub fn ty(&mut self) -> Parsed<Type> {
        let format = self.format()?;
        let shape = Shape(self.list('[', ']', Self::dim)?);
        Ok(Type { dtype: format.dtype, scheme: format.scheme, shape })
    }

    fn dim(&mut self) -> Parsed<Dim> {
        let first = self.single_dim()?;
        if *self.peek() != Token::Mark('+') {
            return Ok(first);
        }
        let mut sum = first.to_string();
        while self.eat('+') {
            sum += &format!("+{}", self.single_dim()?);
        }
        Ok(Dim::sym(&sum))
    }

    fn single_dim(&mut self) -> Parsed<Dim> {
        match self.peek() {
            Token::Number(_) => self.count().map(Dim::Fixed),
            Token::Word(_) => self.word("a dimension").map(|w| Dim::sym(&w)),
            _ => self.expected("a dimension: a number or a symbol"),
        }
    }

    pub fn format(&mut self) -> Parsed<Format> {
        let dtype = self.dtype()?;
        let scheme = if *self.peek() == Token::Mark('<') {
            Scheme(self.list('<', '>', Self::level)?)
        } else {
            Scheme::PLAIN
        };
        Ok(Format { dtype, scheme })
    }

    fn dtype(&mut self) -> Parsed<DType> {
        let span = self.span();
        let word = self.word("a dtype")?;
        word.parse().map_err(|message: String| {
            self.error(span, message).with_hint(nearest(&word, DTYPES.map(DType::name)))
        })
    }

    fn level(&mut self) -> Parsed<Level> {
        let span = self.span();
        let word = self.word("`row` or a group such as `g128`")?;
        let group = word.strip_prefix('g').and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        let per = match group {
            Some(size) => Per::Group(size),
            None if word == "row" => Per::Row,
            None => {
                return Err(self.error(span, format!("`{word}` is neither `row` nor a group such as `g128`")));
            }
        };
        self.mark(':')?;
        Ok(Level { per, dtype: self.dtype()? })
    }

    /// Attributes in braces; none without braces.
    pub fn attrs(&mut self) -> Parsed<Attrs> {
        if *self.peek() != Token::Mark('{') {
            return Ok(vec![]);
        }
        let attrs = self.list('{', '}', |c| {
            let span = c.span();
            let name = c.word("an attribute's name")?;
            c.mark('=')?;
            Ok((name, c.attr()?, span))
        })?;
        let mut names = BTreeSet::new();
        match attrs.iter().find(|(name, _, _)| !names.insert(name.clone())) {
            Some((name, _, span)) => {
                Err(self.error(span.clone(), format!("attribute `{name}` stands twice")))
            }
            None => Ok(attrs),
        }
    }

    fn attr(&mut self) -> Parsed<Attr> {
        match self.peek().clone() {
            Token::Text(text) => {
                self.next();
                Ok(Attr::Str(text.into()))
            }
            Token::Number(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                self.count().map(Attr::Int)
            }
            Token::Number(_) => self.float().map(Attr::Float),
            Token::Mark('[') => self.list('[', ']', Self::float).map(Attr::List),
            Token::Word(word) if word.parse::<DType>().is_err() && !self.before_scheme() => {
                self.next();
                Ok(Attr::Word(word.into()))
            }
            Token::Word(_) => self.format().map(Attr::Format),
            _ => self.expected("an attribute's value"),
        }
    }

    /// Whether a `<` follows the next token, so that it can only be meant as a dtype.
    fn before_scheme(&self) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|(token, _)| *token == Token::Mark('<'))
    }

    fn float(&mut self) -> Parsed<f32> {
        let (token, span) = (self.peek().clone(), self.span());
        let Token::Number(digits) = token else { return self.expected("a number") };
        self.next();
        let value: Option<f32> = digits.parse().ok().filter(|v: &f32| v.is_finite());
        value.ok_or_else(|| self.error(span, format!("`{digits}` does not fit an f32")))
    }

    /// The operation `mnemonic` (at `span`) with these attributes; each must be known to it.
    pub fn op(&self, mnemonic: &str, span: Range<usize>, attrs: &Attrs, extra: &[&str]) -> Parsed<Op> {
        let get = |name: &str| attrs.iter().find(|(n, _, _)| n == name).map(|(_, a, _)| a.clone());
        let Some(info) = OPS.iter().find(|info| info.mnemonic == mnemonic) else {
            let hint = nearest(mnemonic, OPS.iter().map(|info| info.mnemonic));
            return Err(self.error(span, format!("unknown operation `{mnemonic}`")).with_hint(hint));
        };
        let known = || info.attrs.iter().chain(extra).copied();
        if let Some((name, _, at)) = attrs.iter().find(|(name, _, _)| !known().any(|k| k == name)) {
            let message = format!("`{mnemonic}` has no attribute `{name}`");
            return Err(self.error(at.clone(), message).with_hint(nearest(name, known())));
        }
        let wrong = |e: AttrError| self.error(span.clone(), e.to_string()).with_hint(e.hint());
        let built = Op::build(mnemonic, &get).map_err(wrong)?;
        built.ok_or_else(|| self.error(span, format!("unknown operation `{mnemonic}`")))
    }
}
