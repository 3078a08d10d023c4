//! Each operation on tensors. Sums are f64, rounded once.

use rayon::prelude::*;

use super::attention::attention;
use super::{Data, InterpError, Tensor};
use crate::infer::infer;
use crate::quant::Quantized;
use crate::rescale::rescale;
use crate::{Format, Op, Type};

type Checked<T> = Result<T, String>;

/// The result of `op` on operands of fixed shapes.
pub(super) fn eval(op: &Op, operands: &[&Tensor]) -> Result<Tensor, InterpError> {
    let fail = |reason| InterpError::Op { op: op.mnemonic(), reason };
    let types: Vec<&Type> = operands.iter().map(|t| &t.ty).collect();
    let ty = infer(op, &types).map_err(|e| fail(e.reason))?;
    let data = eval_data(op, operands, &ty).map_err(fail)?;
    Ok(Tensor { ty, data })
}

fn eval_data(op: &Op, operands: &[&Tensor], ty: &Type) -> Checked<Data> {
    match (op, operands) {
        (Op::Gather, [table, index]) => gather(table, index),
        (Op::RmsNorm { eps }, [x, weight]) => rms_norm(*eps, x, weight),
        (Op::Linear, [x, weight]) => Ok(linear(x, weight)),
        (Op::Bias, [x, v]) => channelwise(x, v, |a, b| a + b),
        (Op::Scale, [x, v]) => channelwise(x, v, |a, b| a * b),
        (Op::ScaleRows, [x, v]) => scale_rows(x, v),
        (Op::RopeTable, [positions, inv_freq]) => rope_table(positions, inv_freq),
        (Op::Rope, [x, table]) => rope(x, table),
        (Op::KvAppend, [cache, x]) => append(&cache.data, &x.data),
        (Op::Attention { heads, kv_heads, scale, p }, [q, k, v]) => {
            Ok(Data::Float(attention(*heads, *kv_heads, *scale, *p, q, k, v)))
        }
        (Op::Silu, [x]) => Ok(Data::Float(x.floats()?.iter().map(|v| silu(*v)).collect())),
        (Op::Mul, [a, b]) => elementwise(a, b, |a, b| a * b),
        (Op::Add, [a, b]) => elementwise(a, b, |a, b| a + b),
        (Op::Quantize { to, fit }, [x]) => {
            Ok(Data::Quant(Quantized::from_rows(x.floats()?, x.cols(), to, *fit)))
        }
        (Op::Dequantize, [x]) => Ok(Data::Float(x.to_f32())),
        (Op::Rescale { to }, [x, rows @ ..]) => rescale_codes(to, x, rows.first().copied()),
        (Op::Concat, [a, b]) => append(&a.data, &b.data),
        (Op::Slice { start, size }, [x]) => Ok(Data::Float(
            x.floats()?.chunks(x.cols()).flat_map(|row| &row[*start..][..*size]).copied().collect(),
        )),
        (Op::Transpose, [x]) => transpose(x),
        (Op::Reshape { .. } | Op::Fence, [x]) => Ok(x.data.clone()),
        _ => Err(format!("a value of type {ty} must be given")),
    }
}

fn gather(table: &Tensor, index: &Tensor) -> Checked<Data> {
    let (data, cols, rows) = (table.floats()?, table.cols(), table.rows());
    let mut out = Vec::with_capacity(index.cols() * cols);
    for i in index.ints()? {
        let row = usize::try_from(*i).ok().filter(|r| *r < rows);
        let row = row.ok_or_else(|| format!("index {i} is outside the {rows} rows of the table"))?;
        out.extend_from_slice(&data[row * cols..][..cols]);
    }
    Ok(Data::Float(out))
}

fn rms_norm(eps: f32, x: &Tensor, weight: &Tensor) -> Checked<Data> {
    let weight = weight.floats()?;
    let norm = |run: &[f32]| -> Vec<f32> {
        let mean = run.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / run.len() as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        run.iter().zip(weight).map(|(v, w)| (f64::from(*v) * factor * f64::from(*w)) as f32).collect()
    };
    Ok(Data::Float(x.floats()?.chunks(weight.len()).flat_map(norm).collect()))
}

fn linear(x: &Tensor, weight: &Tensor) -> Data {
    let (k, n) = (x.cols(), weight.rows());
    let weights: Vec<(Vec<f32>, f64)> = (0..n).into_par_iter().map(|row| mainloop_row(weight, row)).collect();
    let mut out = vec![0.0f32; x.rows() * n];
    out.par_chunks_mut(n.max(1)).enumerate().for_each(|(t, out)| {
        let (x_row, x_factor) = mainloop_row(x, t);
        for (y, (w_row, w_factor)) in out.iter_mut().zip(&weights) {
            *y = (dot(&x_row[..k], w_row) * w_factor * x_factor) as f32;
        }
    });
    Data::Float(out)
}

/// A row as the mainloop sees it, and what the epilogue multiplies it with.
fn mainloop_row(x: &Tensor, row: usize) -> (Vec<f32>, f64) {
    match &x.data {
        Data::Quant(q) => (q.mainloop_row(row), f64::from(q.row_factor(row))),
        Data::Float(values) => (values[row * x.cols()..][..x.cols()].to_vec(), 1.0),
        Data::Int(_) => (vec![], 1.0),
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn channelwise(x: &Tensor, v: &Tensor, f: impl Fn(f32, f32) -> f32) -> Checked<Data> {
    let v = v.floats()?;
    let row = |row: &[f32]| row.iter().zip(v).map(|(a, b)| f(*a, *b)).collect::<Vec<_>>();
    Ok(Data::Float(x.floats()?.chunks(v.len()).flat_map(row).collect()))
}

fn elementwise(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Checked<Data> {
    Ok(Data::Float(a.floats()?.iter().zip(b.floats()?).map(|(a, b)| f(*a, *b)).collect()))
}

fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    (x / (1.0 + (-x).exp())) as f32
}

/// Angles are f32 products, as in the models' own training code; cosines and sines are rounded once.
fn rope_table(positions: &Tensor, inv_freq: &Tensor) -> Checked<Data> {
    let inv_freq = inv_freq.floats()?;
    let row = |position: &i32| {
        let angles = inv_freq.iter().map(move |f| f64::from(*position as f32 * f));
        angles.clone().map(|a| a.cos() as f32).chain(angles.map(|a| a.sin() as f32)).collect::<Vec<_>>()
    };
    Ok(Data::Float(positions.ints()?.iter().flat_map(row).collect()))
}

fn rope(x: &Tensor, table: &Tensor) -> Checked<Data> {
    let (head, cols) = (table.cols(), x.cols());
    let half = head / 2;
    let mut out = x.floats()?.to_vec();
    for (row, table) in out.chunks_mut(cols).zip(table.floats()?.chunks(head)) {
        for head in row.chunks_mut(head) {
            for i in 0..half {
                let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
                let (cos, sin) = (f64::from(table[i]), f64::from(table[i + half]));
                head[i] = (a * cos - b * sin) as f32;
                head[i + half] = (b * cos + a * sin) as f32;
            }
        }
    }
    Ok(Data::Float(out))
}

fn scale_rows(x: &Tensor, scale: &Tensor) -> Checked<Data> {
    let rows = x.floats()?.chunks(x.cols()).zip(scale.floats()?);
    Ok(Data::Float(rows.flat_map(|(row, s)| row.iter().map(move |v| v * s)).collect()))
}

fn transpose(x: &Tensor) -> Checked<Data> {
    let (data, rows, cols) = (x.floats()?, x.rows(), x.cols());
    Ok(Data::Float((0..cols).flat_map(|c| (0..rows).map(move |r| data[r * cols + c])).collect()))
}

/// The rows of `a`, then those of `b`.
fn append(a: &Data, b: &Data) -> Checked<Data> {
    match (a, b) {
        (Data::Float(a), Data::Float(b)) => Ok(Data::Float([a.as_slice(), b].concat())),
        (Data::Quant(a), Data::Quant(b)) => {
            let mut all = a.clone();
            all.codes.extend_from_slice(&b.codes);
            all.scales.iter_mut().zip(&b.scales).for_each(|(a, b)| a.extend_from_slice(b));
            Ok(Data::Quant(all))
        }
        _ => Err("the rows are of different kinds".into()),
    }
}

fn rescale_codes(to: &Format, x: &Tensor, rows: Option<&Tensor>) -> Checked<Data> {
    let Data::Quant(q) = &x.data else { return Err(format!("wants codes, found {}", x.ty)) };
    Ok(Data::Quant(rescale(q, to, rows.map(Tensor::floats).transpose()?)))
}
