//! Operands and instruction statements, as written.

use super::{Lexer, ParseError, Token};

/// An operand as written; names are not resolved yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A register, symbol or label, plus an offset in bytes.
    Name(&'a str, i64),
    /// `!%p`.
    Not(&'a str),
    /// `%d|%p`.
    Pair(&'a str, &'a str),
    Int(u64),
    F32(u32),
    F64(u64),
    Vector(Vec<Operand<'a>>),
    /// `[base+offset]`, `[base, {coordinates}]`.
    Address {
        base: Box<Operand<'a>>,
        coordinates: Vec<Operand<'a>>,
    },
}

/// One instruction as written.
#[derive(Debug)]
pub(crate) struct Statement<'a> {
    pub line: u32,
    /// Guard predicate and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// Opcode with its modifiers.
    pub opcode: &'a str,
    pub operands: Vec<Operand<'a>>,
}

impl<'a> Statement<'a> {
    /// Parses from the guard or opcode to the semicolon.
    pub fn parse(lexer: &mut Lexer<'a>) -> Result<Self, ParseError> {
        let line = lexer.line();
        let mut guard = None;
        if lexer.take('@')? {
            let negated = lexer.take('!')?;
            guard = Some((lexer.word()?, negated));
        }
        let opcode = lexer.word()?;
        let mut operands = vec![];
        if lexer.peek() != Token::Mark(';') {
            operands.push(operand(lexer, 0)?);
            while lexer.take(',')? {
                operands.push(operand(lexer, 0)?);
            }
        }
        lexer.expect(';')?;
        Ok(Self { line, guard, opcode, operands })
    }
}

/// `depth` bounds the recursion, so that no text overflows the stack.
fn operand<'a>(lexer: &mut Lexer<'a>, depth: u32) -> Result<Operand<'a>, ParseError> {
    if depth > 3 {
        return Err(lexer.unexpected("an operand that is nested less deeply"));
    }
    match lexer.peek() {
        Token::Mark('{') => {
            lexer.advance()?;
            Ok(Operand::Vector(list(lexer, '}', depth)?))
        }
        Token::Mark('[') => address(lexer, depth),
        Token::Mark('!') => {
            lexer.advance()?;
            Ok(Operand::Not(lexer.word()?))
        }
        Token::Word(_) => name(lexer),
        _ => constant(lexer),
    }
}

fn list<'a>(lexer: &mut Lexer<'a>, end: char, depth: u32) -> Result<Vec<Operand<'a>>, ParseError> {
    let mut items = vec![operand(lexer, depth + 1)?];
    while lexer.take(',')? {
        items.push(operand(lexer, depth + 1)?);
    }
    lexer.expect(end)?;
    Ok(items)
}

fn address<'a>(lexer: &mut Lexer<'a>, depth: u32) -> Result<Operand<'a>, ParseError> {
    lexer.expect('[')?;
    let mut items = list(lexer, ']', depth)?;
    let base = Box::new(items.remove(0));
    let coordinates = match items.pop() {
        None => vec![],
        Some(Operand::Vector(coordinates)) if items.is_empty() => coordinates,
        Some(_) => return Err(lexer.unexpected("an address with one vector of coordinates before this")),
    };
    Ok(Operand::Address { base, coordinates })
}

fn name<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, ParseError> {
    let word = lexer.word()?;
    if lexer.take('|')? {
        return Ok(Operand::Pair(word, lexer.word()?));
    }
    let mut offset = 0i64;
    while matches!(lexer.peek(), Token::Mark('+' | '-')) {
        let mut negative = lexer.advance()? == Token::Mark('-');
        negative ^= lexer.take('-')?;
        let value = lexer.int()? as i64;
        offset = offset.wrapping_add(if negative { value.wrapping_neg() } else { value });
    }
    Ok(Operand::Name(word, offset))
}

fn constant<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, ParseError> {
    let negative = lexer.take('-')?;
    let value = match lexer.peek() {
        Token::Int(v) => Operand::Int(if negative { v.wrapping_neg() } else { v }),
        Token::F32(v) => Operand::F32(if negative { v ^ 1 << 31 } else { v }),
        Token::F64(v) => Operand::F64(if negative { v ^ 1 << 63 } else { v }),
        _ => return Err(lexer.unexpected("an operand")),
    };
    lexer.advance()?;
    Ok(value)
}
