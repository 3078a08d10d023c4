//! PTX text: tokens, statements, modules.

mod lexer;
mod operand;
mod parser;
mod variable;

pub(crate) use lexer::{Lexer, Token};
pub(crate) use operand::{Operand, Statement};
pub(crate) use parser::parse;
pub(crate) use variable::Declaration;

use thiserror::Error;

/// Why a text is not PTX that the simulator executes; the line counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line of the PTX text.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}
