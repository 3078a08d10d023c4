//! Element-wise expressions, printed as C++: the bodies of element-wise kernels.

use thiserror::Error;

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A number.
    F32,
    /// A condition.
    Bool,
}

/// An expression over the operands of one element.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// The n-th operand, an f32: `a`, `b`, `c`, …
    Operand(u8),
    /// A finite number.
    Number(f32),
    /// `−x`.
    Negate(Box<Expr>),
    /// e^x.
    Exp(Box<Expr>),
    /// `1/x`, to a unit in the last place: a division is several times as long.
    Reciprocal(Box<Expr>),
    /// Two numbers make one.
    Arithmetic(Operator, Box<Expr>, Box<Expr>),
    /// `a < b`, a condition.
    Less(Box<Expr>, Box<Expr>),
    /// The second where the first holds, the third elsewhere.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
}

/// What makes one number of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `a + b`.
    Add,
    /// `a − b`.
    Subtract,
    /// `a · b`.
    Multiply,
    /// `a / b`.
    Divide,
}

/// An expression whose types do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is {found:?} where {wanted:?} is wanted")]
pub struct ExprError {
    /// The expression that does not fit.
    pub text: String,
    /// Its type.
    pub found: Scalar,
    /// The type that its place wants.
    pub wanted: Scalar,
}

/// How tightly C++ binds, loosest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Conditional,
    Relation,
    Sum,
    Product,
    Unary,
    Whole,
}

impl Expr {
    /// The expression of an operand.
    pub const A: Expr = Expr::Operand(0);
    /// The expression of the second operand.
    pub const B: Expr = Expr::Operand(1);

    /// `self + other`.
    #[must_use]
    pub fn plus(self, other: Expr) -> Expr {
        Expr::Arithmetic(Operator::Add, Box::new(self), Box::new(other))
    }

    /// `self · other`.
    #[must_use]
    pub fn times(self, other: Expr) -> Expr {
        Expr::Arithmetic(Operator::Multiply, Box::new(self), Box::new(other))
    }

    /// `self / other`.
    #[must_use]
    pub fn over(self, other: Expr) -> Expr {
        Expr::Arithmetic(Operator::Divide, Box::new(self), Box::new(other))
    }

    /// `x / (1 + exp(−x))`.
    #[must_use]
    pub fn silu(self) -> Expr {
        let exp = Expr::Exp(Box::new(Expr::Negate(Box::new(self.clone()))));
        self.times(Expr::Reciprocal(Box::new(Expr::Number(1.0).plus(exp))))
    }

    /// The type, once every part has the type that its place wants.
    pub fn check(&self) -> Result<Scalar, ExprError> {
        let is = |expr: &Expr, wanted| match expr.check()? {
            found if found == wanted => Ok(()),
            found => Err(ExprError { text: expr.print(), found, wanted }),
        };
        match self {
            Expr::Operand(_) | Expr::Number(_) => {}
            Expr::Negate(x) | Expr::Exp(x) | Expr::Reciprocal(x) => is(x, Scalar::F32)?,
            Expr::Arithmetic(_, a, b) => is(a, Scalar::F32).and_then(|()| is(b, Scalar::F32))?,
            Expr::Less(a, b) => {
                is(a, Scalar::F32).and_then(|()| is(b, Scalar::F32))?;
                return Ok(Scalar::Bool);
            }
            Expr::Select(condition, a, b) => {
                is(condition, Scalar::Bool)?;
                is(a, Scalar::F32).and_then(|()| is(b, Scalar::F32))?;
            }
        }
        Ok(Scalar::F32)
    }

    /// The expression in C++, with the parentheses that it needs and no others.
    pub fn print(&self) -> String {
        let at = |expr: &Expr, least| {
            let text = expr.print();
            if expr.binding() < least { format!("({text})") } else { text }
        };
        // Operators group to the left: a right operand that binds as tightly is another expression without parentheses.
        match self {
            Expr::Operand(n) => char::from(b'a' + n % 26).to_string(),
            Expr::Number(x) => format!("{x:?}f"),
            Expr::Negate(x) => format!("-{}", at(x, Binding::Whole)),
            Expr::Exp(x) => format!("exponential({})", x.print()),
            Expr::Reciprocal(x) => format!("reciprocal({})", x.print()),
            Expr::Arithmetic(Operator::Add, a, b) => {
                format!("{} + {}", at(a, Binding::Sum), at(b, Binding::Product))
            }
            Expr::Arithmetic(Operator::Subtract, a, b) => {
                format!("{} - {}", at(a, Binding::Sum), at(b, Binding::Product))
            }
            Expr::Arithmetic(Operator::Multiply, a, b) => {
                format!("{} * {}", at(a, Binding::Product), at(b, Binding::Unary))
            }
            Expr::Arithmetic(Operator::Divide, a, b) => {
                format!("{} / {}", at(a, Binding::Product), at(b, Binding::Unary))
            }
            Expr::Less(a, b) => format!("{} < {}", at(a, Binding::Sum), at(b, Binding::Sum)),
            Expr::Select(condition, a, b) => {
                let part = |expr| at(expr, Binding::Relation);
                format!("{} ? {} : {}", part(condition), part(a), part(b))
            }
        }
    }

    fn binding(&self) -> Binding {
        match self {
            Expr::Number(x) if x.is_sign_negative() => Binding::Unary,
            Expr::Operand(_) | Expr::Number(_) | Expr::Exp(_) | Expr::Reciprocal(_) => Binding::Whole,
            Expr::Negate(_) => Binding::Unary,
            Expr::Arithmetic(Operator::Multiply | Operator::Divide, ..) => Binding::Product,
            Expr::Arithmetic(..) => Binding::Sum,
            Expr::Less(..) => Binding::Relation,
            Expr::Select(..) => Binding::Conditional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silu_is_printed_with_the_parentheses_it_needs() {
        assert_eq!(Expr::A.silu().times(Expr::B).print(), "a * reciprocal(1.0f + exponential(-a)) * b");
        assert_eq!(Expr::B.times(Expr::A.silu()).print(), "b * (a * reciprocal(1.0f + exponential(-a)))");
    }

    #[test]
    fn grouping_to_the_right_and_signs_are_kept() {
        let sum = || Expr::A.plus(Expr::B);
        assert_eq!(sum().plus(sum()).print(), "a + b + (a + b)");
        assert_eq!(sum().times(sum()).print(), "(a + b) * (a + b)");
        assert_eq!(Expr::A.over(sum()).print(), "a / (a + b)");
        let negated = Expr::Negate(Box::new(Expr::Number(-2.0)));
        assert_eq!(negated.print(), "-(-2.0f)");
        let difference = Expr::Arithmetic(Operator::Subtract, Box::new(Expr::A), Box::new(negated));
        assert_eq!(difference.print(), "a - -(-2.0f)");
    }

    #[test]
    fn conditions_are_no_numbers() {
        let less = || Expr::Less(Box::new(Expr::A), Box::new(Expr::B));
        let larger = Expr::Select(Box::new(less()), Box::new(Expr::B), Box::new(Expr::A));
        assert_eq!((larger.print().as_str(), larger.check()), ("a < b ? b : a", Ok(Scalar::F32)));
        let error = Expr::A.plus(less()).check().unwrap_err();
        assert_eq!(error.to_string(), "`a < b` is Bool where F32 is wanted");
    }
}
