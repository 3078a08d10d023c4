//! Type inference: the type of each operation from the types of its operands.

use thiserror::Error;

use crate::fused;
use crate::{DType, Dim, Format, Level, Op, Per, Scheme, Shape, Type};

/// Why an operation has no type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{op}`: {reason}")]
pub struct InferError {
    /// The operation's mnemonic.
    pub op: &'static str,
    /// What is wrong, naming operands and types.
    pub reason: String,
}

type Checked<T> = Result<T, String>;

/// The type of `op` applied to operands of `types`. Sources have none to infer and are an error here.
pub fn infer(op: &Op, types: &[&Type]) -> Result<Type, InferError> {
    let fail = |reason| InferError { op: op.mnemonic(), reason };
    op.check_arity(types.len()).map_err(fail)?;
    if let Some(parts) = fused::parts(op, types) {
        return fused::infer(&parts, types).map_err(|e| fail(e.to_string()));
    }
    infer_checked(op, types).map_err(fail)
}

fn infer_checked(op: &Op, types: &[&Type]) -> Checked<Type> {
    match (op, types) {
        (Op::Gather, [table, index]) => gather(table, index),
        (Op::RmsNorm { eps }, [x, weight]) => rms_norm(*eps, x, weight),
        (Op::Linear, [x, weight]) => linear(x, weight),
        (Op::Bias, [x, v]) => {
            activation("x", x)?;
            channelwise(x, &x.shape.cols(), v)
        }
        (Op::Scale, [x, v]) => channelwise(x, &x.shape.cols(), v),
        (Op::ScaleRows, [x, v]) => {
            let (rows, _) = matrix("x", x)?;
            channelwise(x, rows, v)
        }
        (Op::RopeTable, [positions, inv_freq]) => rope_table(positions, inv_freq),
        (Op::Rope, [x, table]) => rope(x, table),
        (Op::KvAppend, [cache, x]) => kv_append(cache, x),
        (Op::Attention { heads, kv_heads, scale, p }, [q, k, v]) => {
            require(scale.is_finite() && *scale > 0.0, || {
                format!("scale {scale:?} is not a positive number")
            })?;
            require(matches!(p, DType::F32 | DType::E4M3), || format!("p is f32 or e4m3, found {p}"))?;
            attention(*heads, *kv_heads, q, k, v)
        }
        (Op::Fence, [x]) => {
            require(x.dtype.is_float(), || format!("x is not plain numbers: {x}"))?;
            Ok((*x).clone())
        }
        (Op::Silu, [x]) => activation("x", x).map(|()| (*x).clone()),
        (Op::Mul | Op::Add, [a, b]) => {
            activation("a", a)?;
            require(a == b, || format!("operands differ: {a} and {b}"))?;
            Ok((*a).clone())
        }
        (Op::Quantize { to, .. }, [x]) => quantize(to, x),
        (Op::Dequantize, [x]) => {
            require(x.dtype.is_code(), || format!("x is not quantized: {x}"))?;
            Ok(Type::plain(DType::F32, x.shape.clone()))
        }
        (Op::Rescale { to }, [x, rows @ ..]) => rescale(to, x, rows.first().copied()),
        (Op::Concat, [a, b]) => concat(a, b),
        (Op::Slice { start, size }, [x]) => slice(*start, *size, x),
        (Op::Transpose, [x]) => {
            let (rows, cols) = matrix("x", x)?;
            require(x.scheme.is_plain(), || format!("x is quantized: {x}"))?;
            Ok(Type::plain(x.dtype, Shape::matrix(cols.clone(), rows.clone())))
        }
        (Op::Reshape { rows, cols }, [x]) => reshape(*rows, *cols, x),
        _ => Err("a source has a declared type".into()),
    }
}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Checked<()> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn activation(name: &str, ty: &Type) -> Checked<()> {
    require(ty.dtype == DType::F32 && ty.shape.0.len() == 2, || format!("{name} is not an f32 matrix: {ty}"))
}

fn vector(name: &str, ty: &Type) -> Checked<Dim> {
    require(ty.dtype.is_float() && ty.shape.0.len() == 1, || {
        format!("{name} is not a vector of floats: {ty}")
    })?;
    Ok(ty.shape.0[0].clone())
}

fn indices(name: &str, ty: &Type) -> Checked<Dim> {
    require(ty.dtype == DType::I32 && ty.shape.0.len() == 1, || {
        format!("{name} is not an i32 vector: {ty}")
    })?;
    Ok(ty.shape.0[0].clone())
}

fn matrix<'a>(name: &str, ty: &'a Type) -> Checked<(&'a Dim, &'a Dim)> {
    match ty.shape.0.as_slice() {
        [rows, cols] if ty.dtype != DType::I32 => Ok((rows, cols)),
        _ => Err(format!("{name} is not a matrix of numbers: {ty}")),
    }
}

fn fixed(name: &str, dim: &Dim) -> Checked<usize> {
    dim.fixed().filter(|n| *n > 0).ok_or_else(|| format!("{name} must be a positive number, found {dim}"))
}

fn gather(table: &Type, index: &Type) -> Checked<Type> {
    let (_, cols) = matrix("table", table)?;
    require(table.dtype.is_float(), || format!("table is quantized: {table}"))?;
    Ok(Type::f32(indices("index", index)?, cols.clone()))
}

fn rms_norm(eps: f32, x: &Type, weight: &Type) -> Checked<Type> {
    activation("x", x)?;
    require(eps.is_finite() && eps >= 0.0, || format!("eps {eps:?} is not a number ≥ 0"))?;
    let run = fixed("weight", &vector("weight", weight)?)?;
    let cols = fixed("channels of x", &x.shape.cols())?;
    require(cols % run == 0, || format!("{cols} channels do not divide into runs of {run}"))?;
    Ok(x.clone())
}

fn linear(x: &Type, weight: &Type) -> Checked<Type> {
    let (rows, k) = matrix("x", x)?;
    let (n, weight_k) = matrix("weight", weight)?;
    require(k == weight_k, || format!("x has {k} channels, weight takes {weight_k}"))?;
    let row_scaled = matches!(x.scheme.0.as_slice(), [Level { per: Per::Row, .. }]);
    require(x.dtype == DType::F32 || row_scaled, || format!("x is neither f32 nor scaled per row: {x}"))?;
    Ok(Type::f32(rows.clone(), n.clone()))
}

/// `x` with a factor or a bias for each of its `along`: channels, or rows.
fn channelwise(x: &Type, along: &Dim, v: &Type) -> Checked<Type> {
    require(x.dtype.is_float(), || format!("x is not plain numbers: {x}"))?;
    let n = vector("the vector", v)?;
    require(*along == n, || format!("x has {along} channels or rows to match, the vector {n}"))?;
    Ok(Type::plain(DType::F32, x.shape.clone()))
}

fn concat(a: &Type, b: &Type) -> Checked<Type> {
    require(a.format() == b.format(), || format!("formats differ: {a} and {b}"))?;
    let rows = |n: &Dim, m: &Dim| {
        fixed("a", n)?.checked_add(fixed("b", m)?).ok_or_else(|| format!("{n} and {m} are too many"))
    };
    match (a.shape.0.as_slice(), b.shape.0.as_slice()) {
        ([n], [m]) if a.dtype.is_float() => Ok(Type::plain(a.dtype, Shape::vector(rows(n, m)?))),
        ([n, k], [m, other]) if k == other => {
            Ok(Type { shape: Shape::matrix(rows(n, m)?, k.clone()), ..(*a).clone() })
        }
        _ => Err(format!("{a} and {b} do not stack")),
    }
}

fn slice(start: usize, size: usize, x: &Type) -> Checked<Type> {
    activation("x", x)?;
    let cols = fixed("channels of x", &x.shape.cols())?;
    let end = start.checked_add(size).filter(|end| size > 0 && *end <= cols);
    require(end.is_some(), || format!("{size} channels from {start} are not among {cols}"))?;
    Ok(Type::f32(x.shape.rows(), size))
}

fn reshape(rows: usize, cols: usize, x: &Type) -> Checked<Type> {
    require(x.dtype.is_float(), || format!("x is not plain numbers: {x}"))?;
    let elements = x.shape.elements().ok_or_else(|| format!("the shape of x is not fixed: {x}"))?;
    require(rows > 0 && cols > 0 && rows.checked_mul(cols) == Some(elements), || {
        format!("{elements} elements do not fill [{rows},{cols}]")
    })?;
    Ok(Type::plain(x.dtype, Shape::matrix(rows, cols)))
}

fn rope_table(positions: &Type, inv_freq: &Type) -> Checked<Type> {
    let rows = indices("positions", positions)?;
    require(inv_freq.dtype == DType::F32, || format!("inv_freq is not f32: {inv_freq}"))?;
    let half = fixed("inv_freq", &vector("inv_freq", inv_freq)?)?;
    Ok(Type::f32(rows, half.checked_mul(2).ok_or_else(|| format!("inv_freq is too long: {half}"))?))
}

fn rope(x: &Type, table: &Type) -> Checked<Type> {
    activation("x", x)?;
    activation("table", table)?;
    require(x.shape.rows() == table.shape.rows(), || format!("x {x} and table {table} differ in rows"))?;
    let (cols, head) = (fixed("channels of x", &x.shape.cols())?, fixed("table", &table.shape.cols())?);
    require(head % 2 == 0 && cols % head == 0, || {
        format!("{cols} channels do not divide into heads of {head}")
    })?;
    Ok(x.clone())
}

fn kv_append(cache: &Type, x: &Type) -> Checked<Type> {
    let (past, _) = matrix("cache", cache)?;
    let (rows, _) = matrix("x", x)?;
    let expected = Type { shape: Shape::matrix(past.clone(), x.shape.cols()), ..x.clone() };
    require(*cache == expected, || format!("cache {cache} cannot take rows of {x}"))?;
    let all = past.concat(rows).ok_or_else(|| format!("{past} and {rows} rows are too many"))?;
    Ok(Type { shape: Shape::matrix(all, x.shape.cols()), ..x.clone() })
}

fn attention(heads: usize, kv_heads: usize, q: &Type, k: &Type, v: &Type) -> Checked<Type> {
    let (rows, _) = matrix("q", q)?;
    let (keys, _) = matrix("k", k)?;
    require(kv_heads > 0 && heads.is_multiple_of(kv_heads), || {
        format!("{heads} heads over {kv_heads} kv heads")
    })?;
    let cols = fixed("channels of q", &q.shape.cols())?;
    require(heads > 0 && cols % heads == 0, || format!("{cols} channels do not divide into {heads} heads"))?;
    let head = cols / heads;
    for (name, ty) in [("k", k), ("v", v)] {
        let expected = Shape::matrix(keys.clone(), kv_heads.saturating_mul(head));
        require(ty.shape == expected, || format!("{name} is {}, expected {expected}", ty.shape))?;
    }
    for (name, ty) in [("q", q), ("k", k), ("v", v)] {
        let per_head = matches!(ty.scheme.0.as_slice(), [Level { per: Per::Group(n), .. }] if *n == head);
        let plain = ty.dtype.is_float();
        require(plain || per_head, || {
            format!("{name} is neither plain nor scaled per head of {head}: {ty}")
        })?;
    }
    Ok(Type::f32(rows.clone(), cols))
}

fn quantize(to: &Format, x: &Type) -> Checked<Type> {
    require(x.dtype.is_float() && x.shape.0.len() == 2, || format!("x is not a matrix of floats: {x}"))?;
    require(to.dtype.is_code() && to.scheme.fits(to.dtype), || format!("`{to}` is not a quantized format"))?;
    require(x.scheme == Scheme::PLAIN, || format!("x is quantized already: {x}"))?;
    fixed("channels of x", &x.shape.cols())?;
    Ok(x.with_format(to))
}

fn rescale(to: &Format, x: &Type, rows: Option<&Type>) -> Checked<Type> {
    let (n, cols) = matrix("x", x)?;
    let cols = fixed("channels of x", cols)?;
    let [level] = x.scheme.0[..] else { return Err(format!("x has not one level of scales: {x}")) };
    let unrounded = x.dtype == DType::I4 && level.dtype != DType::E4M3;
    require(unrounded, || format!("x is not I4 under scales that nothing rounds: {x}"))?;
    let [Level { per: Per::Group(group), .. }, _] = to.scheme.0[..] else {
        return Err(format!("`{to}` has no groups under a scale of each row"));
    };
    require(*to == Format::weight(group) && to.scheme.fits(to.dtype), || {
        format!("`{to}` is not I4 in groups under E4M3 scales")
    })?;
    let whole = level.extent(cols) >= cols || level.extent(cols).is_multiple_of(group);
    require(whole, || format!("groups of {group} do not lie inside of those of x: {x}"))?;
    if let Some(rows) = rows {
        let found = vector("rows", rows)?;
        require(found == *n, || format!("x has {n} rows, the vector {found}"))?;
    }
    Ok(x.with_format(to))
}
