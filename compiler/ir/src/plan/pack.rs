//! Weights as bytes: the parts of a buffer, in the order that its storage wants.

use std::borrow::Cow;

use rayon::prelude::*;

use super::storage::{BLOCK, pitch};
use super::{Part, Storage, parts, records};
use crate::interp::{Data, InterpError, Tensor, eval_constant};
use crate::quant::Quantized;
use crate::{ConstData, DType, Graph, Op, Shape, Type, ValueId, e4m3};

/// A part of a weight with its bytes, `rows × row_bytes`.
pub type PackedPart<'a> = (Part, Cow<'a, [u8]>);

/// The bytes of each part of an expression over constants, in the order of [`parts`]. Constants are borrowed as they
/// are in their file, unchecked; everything computed comes from finite numbers only.
pub fn pack(graph: &Graph, value: ValueId, storage: Storage) -> Result<Vec<PackedPart<'_>>, InterpError> {
    if let (Op::Const { name }, true) = (graph.op(value), graph.ty(value).scheme.is_plain())
        && let Some(bytes) = graph.constants.get(name).and_then(ConstData::bytes)
        && let Some(list) = parts(graph.ty(value), storage)
    {
        return Ok(list.into_iter().map(|part| (part, Cow::Borrowed(bytes))).collect());
    }
    match pack_in_strips(graph, value, storage) {
        Some(packed) => Ok(packed),
        None => pack_tensor(&eval_constant(graph, value)?, storage),
    }
}

/// Rows that are quantized together: whole tiles of every storage, and little memory beside what they are packed to.
const STRIP: usize = 8 * records::ROW_TILE;

/// The parts of a constant that is quantized as it is, strip by strip: rows are independent, and those of the largest
/// weights, of embeddings, do not fit into memory twice as f32. `None` for all other expressions, and for numbers that
/// are not finite.
fn pack_in_strips(graph: &Graph, value: ValueId, storage: Storage) -> Option<Vec<PackedPart<'static>>> {
    let Op::Quantize { to, fit } = graph.op(value) else { return None };
    let of = *graph.operands(value).first()?;
    let (Op::Const { name }, ty) = (graph.op(of), graph.ty(of)) else { return None };
    let (rows, cols) = (ty.shape.rows().fixed()?, ty.shape.cols().fixed()?);
    let row_bytes = cols * ty.dtype.bits() / 8;
    let bytes = graph.constants.get(name)?.bytes().filter(|bytes| bytes.len() == rows * row_bytes)?;
    let room = |part: Part| Some((Vec::with_capacity(part.stored(rows)?.1), part));
    let mut packed: Vec<(Vec<u8>, Part)> =
        parts(graph.ty(value), storage)?.into_iter().map(room).collect::<Option<_>>()?;
    for strip in bytes.chunks(STRIP * row_bytes) {
        let values = crate::interp::widen(ty.dtype, strip)?;
        if !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let strip = Tensor {
            ty: Type::f32(values.len() / cols, cols).with_format(to),
            data: Data::Quant(Quantized::from_rows(&values, cols, to, *fit)),
        };
        let strip = pack_tensor(&strip, storage).ok()?;
        packed.iter_mut().zip(strip).for_each(|((all, _), (_, bytes))| all.extend_from_slice(&bytes));
    }
    Some(packed.into_iter().map(|(bytes, part)| (part, Cow::Owned(bytes))).collect())
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
            match (storage, records::records(q)) {
                (Storage::Records, Some(records)) => std::iter::once(records).chain(scales.skip(1)).collect(),
                _ => std::iter::once(pack_codes(q, storage)).chain(scales).collect(),
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

/// The tensor behind the data of a quantized constant; `None` when sizes disagree. The inverse of [`constant_data`].
pub(crate) fn unpack_plain(ty: &Type, mut bytes: &[u8]) -> Option<Tensor> {
    let rows = ty.shape.rows().fixed()?;
    let mut arrays = vec![];
    for part in parts(ty, Storage::Plain)? {
        let (array, rest) = bytes.split_at_checked(part.stored(rows)?.1)?;
        arrays.push(array);
        bytes = rest;
    }
    if bytes.is_empty() { unpack(ty, Storage::Plain, &arrays) } else { None }
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
    let row_bytes = list[0].row_bytes().max(1);
    let codes = arrays[0].chunks(row_bytes).flat_map(|row| unpack_row(row, cols, &format, storage)).collect();
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
        DType::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

fn pack_codes(q: &Quantized, storage: Storage) -> Vec<u8> {
    let rows: Vec<Vec<u8>> =
        q.codes.par_chunks(q.cols).map(|row| pack_row(row, &q.format, storage)).collect();
    rows.concat()
}

fn pack_row(row: &[i8], format: &crate::Format, storage: Storage) -> Vec<u8> {
    let extent = format.scheme.0[0].extent(row.len());
    match (storage, format.dtype) {
        (Storage::Blocked32, DType::I4) => {
            row.chunks(extent).flat_map(|g| g.chunks(BLOCK)).flat_map(pack_block).collect()
        }
        (Storage::Blocked32, _) => row.chunks(extent).flat_map(widen_group).collect(),
        (_, DType::I4) => row.chunks(2).map(|c| nibbles(c[0], c.get(1).copied().unwrap_or(0))).collect(),
        (Storage::Pitched, _) => row.chunks(extent).flat_map(pad_group).collect(),
        (_, _) => row.iter().map(|c| *c as u8).collect(),
    }
}

fn nibbles(low: i8, high: i8) -> u8 {
    (low as u8 & 15) | (high as u8) << 4
}

fn pack_block(codes: &[i8]) -> [u8; BLOCK / 2] {
    let code = |i: usize| codes.get(i).copied().unwrap_or(0);
    std::array::from_fn(|j| nibbles(code(j), code(j + BLOCK / 2)))
}

fn widen_group(codes: &[i8]) -> Vec<u8> {
    let padding = codes.len().next_multiple_of(BLOCK) - codes.len();
    let values = codes.iter().map(|c| e4m3::decode(*c as u8)).chain(std::iter::repeat_n(0.0, padding));
    values.flat_map(f32::to_le_bytes).collect()
}

fn pad_group(codes: &[i8]) -> Vec<u8> {
    let padding = pitch(codes.len()) - codes.len();
    codes.iter().map(|c| *c as u8).chain(std::iter::repeat_n(0, padding)).collect()
}

fn unpack_row(row: &[u8], cols: usize, format: &crate::Format, storage: Storage) -> Vec<i8> {
    let extent = format.scheme.0[0].extent(cols);
    if storage == Storage::Plain {
        let code = |i| if format.dtype == DType::I4 { signed(row[i / 2], i % 2 == 1) } else { row[i] as i8 };
        return (0..cols).map(code).collect();
    }
    let group = if storage == Storage::Pitched { pitch(1) } else { BLOCK };
    let position = |i: usize| i / extent * extent.next_multiple_of(group) + i % extent;
    let code = |i: usize| match format.dtype {
        _ if storage == Storage::Pitched => row[i] as i8,
        DType::I4 => signed(row[i / BLOCK * (BLOCK / 2) + i % (BLOCK / 2)], i % BLOCK >= BLOCK / 2),
        _ => e4m3::encode(f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]]))
            as i8,
    };
    (0..cols).map(position).map(code).collect()
}

fn signed(byte: u8, high: bool) -> i8 {
    (if high { byte } else { byte << 4 }) as i8 >> 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn unpack_inverts_pack_for_every_format_and_odd_sizes() {
        for cols in [1, 31, 64, 128, 172, 200, 257] {
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
                let others = recorded.into_iter().chain(pitched);
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

    #[test]
    fn strips_make_what_the_whole_makes() {
        let (rows, cols) = (STRIP + 130, 40);
        let values: Vec<f32> = (0..rows * cols).map(|i| ((i * i) as f32 * 0.3).sin()).collect();
        for format in [Format::head(), Format::weight(128), Format::kv(20)] {
            let mut graph = Graph::new("g");
            let weight = Type::plain(DType::F32, Shape::matrix(rows, cols));
            let weight = graph.constant("w", weight, ConstData::from_f32(&values));
            let to = Op::Quantize { to: format.clone(), fit: crate::Fit::Absmax };
            let codes = graph.add(to, &[weight]).unwrap();
            let whole = eval_constant(&graph, codes).unwrap();
            let recorded = records::group(graph.ty(codes)).map(|_| Storage::Records);
            for storage in [Storage::Plain, Storage::Blocked32].into_iter().chain(recorded) {
                let strips = pack_in_strips(&graph, codes, storage).unwrap();
                assert_eq!(strips, pack_tensor(&whole, storage).unwrap(), "{format} {storage:?}");
            }
        }
    }

    #[test]
    fn a_block_holds_its_halves_in_low_and_high_nibbles() {
        let codes: Vec<i8> = (0..32).map(|i| (i % 16) as i8 - 8).collect();
        let block = pack_block(&codes);
        assert_eq!(block[0], 0x88);
        assert_eq!(block[15], 0x77);
    }
}
