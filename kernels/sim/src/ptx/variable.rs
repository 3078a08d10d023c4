//! Declarations of variables and parameters: `.align 16 .b8 name[128] = {…}`.

use super::{Lexer, ParseError, Token};
use crate::types::Type;

/// A variable or parameter as declared.
#[derive(Debug, Clone)]
pub(crate) struct Declaration<'a> {
    pub name: &'a str,
    pub align: usize,
    /// Zero for `name[]`.
    pub bytes: usize,
    /// Initial bytes; empty when there is no initialiser.
    pub init: Vec<u8>,
}

/// The largest variable that PTX of a kernel may declare.
const MOST_BYTES: u64 = 1 << 30;

impl<'a> Declaration<'a> {
    /// Parses what follows the state space, without the closing `;`, `,` or `)`.
    pub fn parse(lexer: &mut Lexer<'a>) -> Result<Self, ParseError> {
        let mut align = None;
        let mut ty = None;
        let mut lanes = 1;
        let name = loop {
            match lexer.word()? {
                ".align" => align = Some(alignment(lexer)?),
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".ptr" | ".global" | ".const" | ".shared" | ".local" | ".param" => {}
                ".attribute" => attribute(lexer)?,
                word if word.starts_with('.') => ty = Some(element(lexer, word)?),
                name => break name,
            }
        };
        let ty = ty.ok_or_else(|| ParseError::new(lexer.line(), format!("`{name}` has no type")))?;
        let width = ty.bytes() * lanes;
        let bytes = dimensions(lexer)?.map_or(Some(width), |n| (n as usize).checked_mul(width));
        let bytes = bytes
            .filter(|b| *b as u64 <= MOST_BYTES)
            .ok_or_else(|| ParseError::new(lexer.line(), format!("`{name}` is too large")))?;
        let mut declaration = Self { name, align: align.unwrap_or(width), bytes, init: vec![] };
        if lexer.take('=')? {
            declaration.init = initialiser(lexer, ty)?;
            declaration.bytes = bytes.max(declaration.init.len());
            declaration.init.resize(declaration.bytes, 0);
        }
        Ok(declaration)
    }
}

fn alignment(lexer: &mut Lexer) -> Result<usize, ParseError> {
    let line = lexer.line();
    let align = lexer.int()?;
    if !align.is_power_of_two() || align > 4096 {
        return Err(ParseError::new(line, format!("{align} is not an alignment")));
    }
    Ok(align as usize)
}

fn attribute(lexer: &mut Lexer) -> Result<(), ParseError> {
    lexer.expect('(')?;
    lexer.word()?;
    lexer.expect(')')
}

fn element(lexer: &Lexer, word: &str) -> Result<Type, ParseError> {
    let unknown = || ParseError::new(lexer.line(), format!("`{word}` is not a type of variables"));
    Type::parse(&word[1..]).filter(|t| t.bits >= 8).ok_or_else(unknown)
}

/// Product of the dimensions; an open one counts as zero.
fn dimensions(lexer: &mut Lexer) -> Result<Option<u64>, ParseError> {
    let mut product = None;
    while lexer.take('[')? {
        let n = if lexer.peek() == Token::Mark(']') { 0 } else { lexer.int()? };
        product = Some(product.unwrap_or(1u64).saturating_mul(n).min(MOST_BYTES + 1));
        lexer.expect(']')?;
    }
    Ok(product)
}

fn initialiser(lexer: &mut Lexer, ty: Type) -> Result<Vec<u8>, ParseError> {
    let mut bytes = vec![];
    let mut depth = 0;
    loop {
        if lexer.take('{')? {
            depth += 1;
            continue;
        }
        if lexer.take('}')? {
            depth -= 1;
        } else {
            bytes.extend_from_slice(&number(lexer)?.to_le_bytes()[..ty.bytes()]);
        }
        while depth > 0 && lexer.take('}')? {
            depth -= 1;
        }
        if depth <= 0 {
            return Ok(bytes);
        }
        lexer.expect(',')?;
    }
}

fn number(lexer: &mut Lexer) -> Result<u64, ParseError> {
    let negative = lexer.take('-')?;
    let value = match lexer.peek() {
        Token::Int(v) | Token::F64(v) => v,
        Token::F32(v) => v.into(),
        _ => return Err(lexer.unexpected("a number (addresses in initialisers are not supported)")),
    };
    lexer.advance()?;
    Ok(if negative { value.wrapping_neg() } else { value })
}
