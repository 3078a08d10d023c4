//! Attributes of operations and their text.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::{DType, Format};

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
    #[error("attribute `{0}` wants {1}, found `{2}`")]
    Kind(String, &'static str, String),
}

/// A Rust type that an attribute can hold.
pub trait Attribute: Sized {
    /// What a value of this kind is called in errors.
    const KIND: &'static str;
    /// As an attribute.
    fn to_attr(&self) -> Attr;
    /// From an attribute of the right kind.
    fn from_attr(attr: &Attr) -> Option<Self>;

    /// The attribute `name` from `get`, or why not.
    fn required(name: &str, get: &dyn Fn(&str) -> Option<Attr>) -> Result<Self, AttrError> {
        let attr = get(name).ok_or_else(|| AttrError::Missing(name.into()))?;
        Self::from_attr(&attr).ok_or_else(|| AttrError::Kind(name.into(), Self::KIND, attr.to_string()))
    }
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
    fn to_attr(&self) -> Attr {
        Attr::Format(self.clone())
    }
    fn from_attr(attr: &Attr) -> Option<Self> {
        if let Attr::Format(f) = attr { Some(f.clone()) } else { None }
    }
}

impl Attribute for DType {
    const KIND: &'static str = "a dtype";
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
