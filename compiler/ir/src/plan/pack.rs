//! Weights as bytes: the parts of a buffer, in the order that its storage wants.

use std::borrow::Cow;
use std::ops::Range;

use super::codes::{pack_codes, unpack_codes};
use super::{Part, Storage, parts, records};
use crate::interp::{Data, InterpError, Tensor, eval_constant, eval_rows, row_wise};
use crate::quant::{PIECE, Quantized};
use crate::{ConstData, DType, Graph, Op, Shape, Type, ValueId, e4m3};

/// A part of a weight with its bytes, `rows × row_bytes`.
pub type PackedPart<'a> = (Part, Cow<'a, [u8]>);

/// The bytes of each part of an expression over constants, in the order of [`parts`]. Constants are borrowed as they
/// are in their file, unchecked; everything computed comes from finite numbers only.
pub fn pack(graph: &Graph, value: ValueId, storage: Storage) -> Result<Vec<PackedPart<'_>>, InterpError> {
    pack_rows(graph, value, storage, 0..graph.ty(value).shape.rows().fixed().unwrap_or(0))
}

/// As [`pack`], of some rows: of all, or of a piece of [`pieces`].
pub fn pack_rows(
    graph: &Graph,
    value: ValueId,
    storage: Storage,
    rows: Range<usize>,
) -> Result<Vec<PackedPart<'_>>, InterpError> {
    let ty = graph.ty(value);
    let all = ty.shape.rows().fixed().unwrap_or(0);
    if let (Op::Const { name }, true) = (graph.op(value), ty.scheme.is_plain())
        && let Some(bytes) = graph.constants.get(name).and_then(ConstData::bytes)
        && let Some(list) = parts(ty, storage)
    {
        let row = bytes.len() / all.max(1);
        let bytes = if rows.len() == all { bytes } else { &bytes[rows.start * row..rows.end * row] };
        return Ok(list.into_iter().map(|part| (part, Cow::Borrowed(bytes))).collect());
    }
    let tensor = if rows.len() == all { eval_constant(graph, value) } else { eval_rows(graph, value, rows) };
    pack_tensor(&tensor?, storage)
}

/// The rows of a value in pieces that can be packed one by one, by tasks that need little memory; all of them where what
/// they are made of mixes rows.
pub fn pieces(graph: &Graph, value: ValueId, storage: Storage) -> Vec<Range<usize>> {
    let shape = &graph.ty(value).shape;
    let (rows, cols) = (shape.rows().fixed().unwrap_or(0), shape.cols().fixed().unwrap_or(0));
    let tile = parts(graph.ty(value), storage).iter().flatten().map(|part| part.row_tile).max().unwrap_or(1);
    let piece =
        if row_wise(graph, value) { (PIECE / cols.max(1)).max(1).next_multiple_of(tile) } else { rows };
    (0..rows).step_by(piece.max(1)).map(|start| start..(start + piece).min(rows)).collect()
}

/// The bytes of each part of a tensor. Numbers of dtypes other than f32 and i32 are stored as f32 would round to them.
pub fn pack_tensor(tensor: &Tensor, storage: Storage) -> Result<Vec<PackedPart<'static>>, InterpError> {
    let list = parts(&tensor.ty, storage)
        .ok_or(InterpError::Op { op: "pack", reason: "the type has no such storage".into() })?;
    let arrays = match &tensor.data {
        Data::Float(values) => vec![narrow(values, tensor.ty.dtype)],
        Data::Int(values) => vec![values.iter().flat_map(|v| v.to_le_bytes()).collect()],
        Data::Quant(q) => {
            let scales = q.scales.iter().zip(&q.format.scheme.0).map(|(s, level)| narrow(s, level.dtype));
            match if storage == Storage::Records { records::records(q) } else { None } {
                Some(records) => std::iter::once(records).chain(scales.skip(1)).collect(),
                None => std::iter::once(pack_codes(q, storage, &list[0])).chain(scales).collect(),
            }
        }
    };
    Ok(list.into_iter().zip(arrays.into_iter().map(Cow::Owned)).collect())
}

/// The data of a quantized constant: packed codes, low nibble first, and then scales, level by level.
pub fn constant_data(quantized: Quantized) -> ConstData {
    let rows = quantized.rows();
    let shape = Shape::matrix(rows, quantized.cols);
    let ty = Type { dtype: quantized.format.dtype, scheme: quantized.format.scheme.clone(), shape };
    let packed =
        pack_tensor(&Tensor { ty, data: Data::Quant(quantized) }, Storage::Plain).unwrap_or_default();
    ConstData::from_bytes(packed.into_iter().flat_map(|(_, bytes)| bytes.into_owned()).collect())
}

/// The tensor behind the data of a quantized constant, or `rows` of it; `None` when sizes disagree. The inverse of
/// [`constant_data`].
pub(crate) fn unpack_plain(ty: &Type, mut bytes: &[u8], rows: Range<usize>) -> Option<Tensor> {
    let all = ty.shape.rows().fixed()?;
    let mut arrays = vec![];
    for part in parts(ty, Storage::Plain)? {
        let (array, rest) = bytes.split_at_checked(part.stored(all)?.1)?;
        arrays.push(&array[part.stored(rows.start)?.1..part.stored(rows.end)?.1]);
        bytes = rest;
    }
    let shape = Shape::matrix(rows.len(), ty.shape.cols());
    if bytes.is_empty() { unpack(&Type { shape, ..ty.clone() }, Storage::Plain, &arrays) } else { None }
}

/// The tensor that packed parts hold: the inverse of [`pack_tensor`]. `None` when sizes disagree.
pub fn unpack(ty: &Type, storage: Storage, arrays: &[&[u8]]) -> Option<Tensor> {
    let list = parts(ty, storage)?;
    let (cols, rows) = (ty.shape.cols().fixed()?, ty.shape.rows().fixed()?);
    let sizes = list.iter().map(|p| p.stored(rows));
    if list.len() != arrays.len() || !sizes.zip(arrays).all(|(size, a)| size.is_some_and(|s| s.1 == a.len()))
    {
        return None;
    }
    let format = ty.format();
    if ty.scheme.is_plain() {
        let number = |b: &[u8; 4]| i32::from_le_bytes(*b);
        let data = match ty.dtype {
            DType::I32 => Data::Int(arrays[0].as_chunks().0.iter().map(number).collect()),
            dtype => Data::Float(wide(arrays[0], dtype)?),
        };
        return Some(Tensor { ty: ty.clone(), data });
    }
    if storage == Storage::Records {
        let (codes, scales) = records::unpack(arrays[0], rows, cols, records::group(ty)?);
        let scales = vec![scales, wide(arrays[1], DType::F32)?];
        return Some(Tensor { ty: ty.clone(), data: Data::Quant(Quantized { format, cols, codes, scales }) });
    }
    let codes = unpack_codes(arrays[0], &list[0], (rows, cols), &format, storage);
    let levels = format.scheme.0.iter().zip(&arrays[1..]);
    let scales = levels.map(|(level, bytes)| wide(bytes, level.dtype)).collect::<Option<_>>()?;
    Some(Tensor { ty: ty.clone(), data: Data::Quant(Quantized { format, cols, codes, scales }) })
}

fn wide(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
    if dtype == DType::E4M3 {
        return Some(bytes.iter().map(|b| e4m3::decode(*b)).collect());
    }
    crate::interp::widen(dtype, bytes)
}

fn narrow(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::E4M3 => values.iter().map(|v| e4m3::encode(*v)).collect(),
        DType::BF16 => bytes_of(values.iter().map(|v| half::bf16::from_f32(*v).to_le_bytes())),
        DType::F16 => bytes_of(values.iter().map(|v| half::f16::from_f32(*v).to_le_bytes())),
        _ => bytes_of(values.iter().map(|v| v.to_le_bytes())),
    }
}

/// Bytes of one number after another.
fn bytes_of<const N: usize>(numbers: impl ExactSizeIterator<Item = [u8; N]>) -> Vec<u8> {
    let mut bytes = vec![0; N * numbers.len()];
    bytes.as_chunks_mut::<N>().0.iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn unpack_inverts_pack_for_every_format_and_odd_sizes() {
        for cols in [1, 31, 64, 128, 172, 200, 256, 257] {
            for format in [
                Format::weight(128),
                Format::weight(64),
                Format::activation(),
                Format::kv(80),
                Format::query(48),
            ] {
                let ty = Type::plain(DType::F32, Shape::matrix(3, cols)).with_format(&format);
                let values = (0..3 * cols).map(|i| ((i * i) as f32 * 0.7).sin()).collect();
                let tensor = Tensor::filled(&ty, values);
                let recorded = records::group(&ty).map(|_| Storage::Records);
                let pitched = (ty.dtype == DType::E4M3).then_some(Storage::Pitched);
                let interleaved = parts(&ty, Storage::Interleaved).map(|_| Storage::Interleaved);
                let others = recorded.into_iter().chain(pitched).chain(interleaved);
                for storage in [Storage::Plain, Storage::Blocked32].into_iter().chain(others) {
                    let packed = pack_tensor(&tensor, storage).unwrap();
                    let arrays: Vec<&[u8]> = packed.iter().map(|(_, bytes)| &**bytes).collect();
                    let sizes: Vec<usize> =
                        packed.iter().map(|(part, _)| part.stored(3).unwrap().1).collect();
                    assert_eq!(sizes, arrays.iter().map(|a| a.len()).collect::<Vec<_>>(), "{ty} {storage:?}");
                    assert_eq!(unpack(&ty, storage, &arrays).unwrap(), tensor, "{ty} {storage:?}");
                }
            }
        }
    }
}
