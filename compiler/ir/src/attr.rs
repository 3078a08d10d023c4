//! Attributes of operations and their text.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::text::nearest;
use crate::{DTYPES, DType, Format};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// A name, printed in quotes.
    Str(Arc<str>),
    /// A count.
    Int(usize),
    /// A number, printed so that it parses back to the same bits.
    Float(f32),
    /// A dtype with its scheme.
    Format(Format),
    /// One of a few words, none of them a dtype.
    Word(Arc<str>),
    /// Inline data of a small constant.
    List(Vec<f32>),
}

/// An attribute is missing or of the wrong kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttrError {
    /// A required attribute is absent.
    #[error("attribute `{0}` is missing")]
    Missing(String),
    /// The value is of another kind.
    #[error("attribute `{name}` wants {wanted}, found `{found}`")]
    Kind {
        /// The attribute.
        name: String,
        /// What a value is called.
        wanted: &'static str,
        /// The value.
        found: String,
        /// The word that was probably meant.
        hint: Option<String>,
    },
}

impl AttrError {
    /// What would be right, where that can be guessed.
    pub fn hint(&self) -> Option<String> {
        if let AttrError::Kind { hint, .. } = self { hint.clone() } else { None }
    }
}

/// A Rust type that an attribute can hold.
pub trait Attribute: Sized + PartialEq {
    /// What a value of this kind is called in errors.
    const KIND: &'static str;
    /// The value that stands where none is written. Canonical text leaves it out; without it, one must be written.
    const OMITTED: Option<Self> = None;

    /// The words that values of this kind begin with, where they are words.
    fn words() -> Vec<&'static str> {
        vec![]
    }
    /// As an attribute.
    fn to_attr(&self) -> Attr;
    /// From an attribute of the right kind.
    fn from_attr(attr: &Attr) -> Option<Self>;

    /// As canonical text has it: `None` for the value that it leaves out.
    fn shown(&self) -> Option<Attr> {
        (Self::OMITTED.as_ref() != Some(self)).then(|| self.to_attr())
    }

    /// The attribute `name` from `get`, or why not.
    fn read(name: &str, get: &dyn Fn(&str) -> Option<Attr>) -> Result<Self, AttrError> {
        let Some(attr) = get(name) else {
            return Self::OMITTED.ok_or_else(|| AttrError::Missing(name.into()));
        };
        Self::from_attr(&attr).ok_or_else(|| wrong_kind::<Self>(name, &attr))
    }
}

fn wrong_kind<A: Attribute>(name: &str, attr: &Attr) -> AttrError {
    let hint = if let Attr::Word(word) = attr { nearest(word, A::words()) } else { None };
    AttrError::Kind { name: name.into(), wanted: A::KIND, found: attr.to_string(), hint }
}

impl Attribute for Arc<str> {
    const KIND: &'static str = "a quoted name";
    fn to_attr(&self) -> Attr {
        Attr::Str(self.clone())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Str(s) = attr { Some(s.clone()) } else { None }
    }
}

impl Attribute for usize {
    const KIND: &'static str = "a whole number";
    fn to_attr(&self) -> Attr {
        Attr::Int(*self)
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Int(n) = attr { Some(*n) } else { None }
    }
}

impl Attribute for f32 {
    const KIND: &'static str = "a number";
    fn to_attr(&self) -> Attr {
        Attr::Float(*self)
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        match attr {
            Attr::Float(x) => Some(*x),
            Attr::Int(n) => Some(*n as f32),
            _ => None,
        }
    }
}

impl Attribute for Format {
    const KIND: &'static str = "a format such as e4m3<row:f32>";
    fn words() -> Vec<&'static str> {
        DTYPES.map(DType::name).to_vec()
    }
    fn to_attr(&self) -> Attr {
        Attr::Format(self.clone())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Format(f) = attr { Some(f.clone()) } else { None }
    }
}

impl Attribute for DType {
    const KIND: &'static str = "a dtype";
    fn words() -> Vec<&'static str> {
        DTYPES.map(DType::name).to_vec()
    }
    fn to_attr(&self) -> Attr {
        Attr::Format(Format { dtype: *self, scheme: crate::Scheme::PLAIN })
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        match attr {
            Attr::Format(f) if f.scheme.is_plain() => Some(f.dtype),
            _ => None,
        }
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Str(s) => write!(f, "{}", Quoted(s)),
            Attr::Int(n) => write!(f, "{n}"),
            Attr::Float(x) => write!(f, "{x:?}"),
            Attr::Format(format) => write!(f, "{format}"),
            Attr::Word(word) => f.write_str(word),
            Attr::List(items) => write!(f, "{items:?}"),
        }
    }
}

/// A string in quotes, with `\"`, `\\`, `\n`, `\t` and `\u{…}` as escapes.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
