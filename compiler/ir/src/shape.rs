//! Shapes with named symbolic dimensions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One dimension: a number, or a symbol such as `T` that each execution binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Known at compile time.
    Fixed(usize),
    /// A symbol, or a sum of symbols written `P+T`.
    Sym(Arc<str>),
}

/// Values of symbols for one execution.
pub type DimBindings = BTreeMap<String, usize>;

impl Dim {
    /// The symbol `name`.
    pub fn sym(name: &str) -> Self {
        Dim::Sym(name.into())
    }

    /// The number, when it is known at compile time.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(*n),
            Dim::Sym(_) => None,
        }
    }

    /// The dimension of two pieces laid end to end; `None` when the sum overflows.
    #[must_use]
    pub fn concat(&self, other: &Dim) -> Option<Self> {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_add(*b).map(Dim::Fixed),
            _ => Some(Dim::sym(&format!("{self}+{other}"))),
        }
    }

    /// The number under `bindings`; `None` when a symbol is unbound or the sum overflows.
    pub fn resolve(&self, bindings: &DimBindings) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(*n),
            Dim::Sym(name) => name.split('+').try_fold(0usize, |sum, part| {
                let value = part.parse().ok().or_else(|| bindings.get(part).copied())?;
                sum.checked_add(value)
            }),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Sym(name) => f.write_str(name),
        }
    }
}

/// The dimensions of a tensor, outermost first. Every value has one or two.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A vector of `n`.
    pub fn vector(n: impl Into<Dim>) -> Self {
        Shape(vec![n.into()])
    }

    /// A matrix of `rows` × `cols`.
    pub fn matrix(rows: impl Into<Dim>, cols: impl Into<Dim>) -> Self {
        Shape(vec![rows.into(), cols.into()])
    }

    /// Number of rows: 1 for a vector.
    pub fn rows(&self) -> Dim {
        if self.0.len() < 2 { Dim::Fixed(1) } else { self.0[0].clone() }
    }

    /// Elements in a row: the last dimension.
    pub fn cols(&self) -> Dim {
        self.0.last().cloned().unwrap_or(Dim::Fixed(1))
    }

    /// The shape with every symbol replaced by its number; `None` when a symbol is unbound.
    pub fn resolve(&self, bindings: &DimBindings) -> Option<Shape> {
        self.0.iter().map(|d| d.resolve(bindings).map(Dim::Fixed)).collect::<Option<_>>().map(Shape)
    }

    /// Number of elements, when every dimension is fixed and the product fits.
    pub fn elements(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |n, d| n.checked_mul(d.fixed()?))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}
