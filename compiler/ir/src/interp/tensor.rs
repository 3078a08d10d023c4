//! Values of the interpreter.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};

use super::InterpError;
use crate::numbers::first_non_finite;
use crate::plan::unpack_plain;
use crate::quant::Quantized;
use crate::{ConstData, DType, Dim, Fit, Shape, Type};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Numbers of any float dtype, widened to f32.
    Float(Vec<f32>),
    /// Indices.
    Int(Vec<i32>),
    /// Codes and scales.
    Quant(Quantized),
}

/// A tensor of fixed shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Type; every dimension is a number.
    pub ty: Type,
    /// Elements.
    pub data: Data,
}

impl Tensor {
    /// A vector of indices.
    pub fn from_i32(values: &[i32]) -> Self {
        Tensor { ty: Type::plain(DType::I32, Shape::vector(values.len())), data: Data::Int(values.to_vec()) }
    }

    /// An f32 matrix with rows of `cols`.
    pub fn from_rows(values: Vec<f32>, cols: usize) -> Self {
        Tensor { ty: Type::f32(values.len() / cols.max(1), cols), data: Data::Float(values) }
    }

    /// A cache of type `ty` without rows; its row length must be fixed.
    pub fn empty_cache(ty: &Type) -> Self {
        let cols = ty.shape.cols().fixed().unwrap_or(0);
        Self::filled(&Type { shape: Shape::matrix(0, cols), ..ty.clone() }, vec![])
    }

    /// The tensor of a float or quantized type with these numbers, quantized if the type says so.
    pub fn filled(ty: &Type, values: Vec<f32>) -> Self {
        let cols = ty.shape.cols().fixed().unwrap_or(1);
        let data = if ty.dtype.is_code() {
            Data::Quant(Quantized::from_rows(&values, cols, &ty.format(), Fit::Absmax))
        } else {
            Data::Float(values)
        };
        Tensor { ty: ty.clone(), data }
    }

    /// Number of rows; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.ty.shape.rows().fixed().unwrap_or(0)
    }

    /// Elements per row.
    pub fn cols(&self) -> usize {
        self.ty.shape.cols().fixed().unwrap_or(0)
    }

    /// The numbers as f32, codes dequantized, indices converted.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::Float(values) => values.clone(),
            Data::Int(values) => values.iter().map(|v| *v as f32).collect(),
            Data::Quant(q) => q.dequantize(),
        }
    }

    /// True when the tensor is a value of `declared`, whose symbols may stand for any number.
    pub(super) fn fits(&self, declared: &Type) -> bool {
        let dims = self.ty.shape.0.iter().zip(&declared.shape.0);
        self.ty.format() == declared.format()
            && self.ty.shape.0.len() == declared.shape.0.len()
            && dims.into_iter().all(|(found, wanted)| matches!(wanted, Dim::Sym(_)) || found == wanted)
    }

    pub(super) fn floats(&self) -> Result<&[f32], String> {
        if let Data::Float(values) = &self.data {
            Ok(values)
        } else {
            Err(format!("wants floats, found {}", self.ty))
        }
    }

    pub(super) fn ints(&self) -> Result<&[i32], String> {
        if let Data::Int(values) = &self.data {
            Ok(values)
        } else {
            Err(format!("wants indices, found {}", self.ty))
        }
    }

    /// The value of a constant, or of some of it along its first dimension; random by name when its data was elided, and
    /// whole.
    pub(super) fn constant(
        name: &str,
        ty: &Type,
        data: Option<&ConstData>,
        rows: Option<Range<usize>>,
    ) -> Result<Self, InterpError> {
        let fail = |reason: &str| InterpError::Op { op: "const", reason: format!("`{name}`: {reason}") };
        let elements = ty.shape.elements().ok_or_else(|| fail("has no fixed shape"))?;
        let Some(data) = data.filter(|data| !matches!(data, ConstData::Elided { .. })) else {
            return Ok(Self::random(name, ty, elements));
        };
        let all = ty.shape.0.first().and_then(Dim::fixed).unwrap_or(1);
        let rows = rows.unwrap_or(0..all);
        let size = data.size().unwrap_or(0);
        let mut ty = ty.clone();
        let mut of_rows = |len| ty.shape.0.iter_mut().take(1).for_each(|dim| *dim = Dim::Fixed(len));
        // What is made of some rows is all there is.
        let (bytes, place) = match data {
            ConstData::Decoded { source, .. } if rows.end <= source.rows() => {
                of_rows(rows.len());
                (Cow::Owned(source.decode(rows.clone())), 0..rows.len())
            }
            _ => (Cow::Borrowed(data.bytes().unwrap_or_default()), rows.clone()),
        };
        if !ty.scheme.is_plain() {
            let tensor = unpack_plain(&ty, &bytes, place)
                .ok_or_else(|| fail("its codes and scales do not have the sizes of its type"))?;
            return finite_scales(tensor).ok_or_else(|| fail("a scale is not finite; weights must be"));
        }
        if size != elements * ty.dtype.bits() / 8 {
            return Err(fail("its data does not have the size of its type"));
        }
        let row = size / all.max(1);
        let bytes = &bytes[row * place.start..row * place.end];
        ty.shape.0.iter_mut().take(1).for_each(|dim| *dim = Dim::Fixed(rows.len()));
        if ty.dtype == DType::I32 {
            let values = bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
            return Ok(Tensor { ty, data: Data::Int(values) });
        }
        let values = widen(ty.dtype, bytes).ok_or_else(|| fail("its dtype has no plain numbers"))?;
        if let Some(at) = first_non_finite(ty.dtype, bytes) {
            let element = at + elements / all.max(1) * rows.start;
            return Err(fail(&format!("element {element} is {}; weights must be finite", values[at])));
        }
        Ok(Tensor { ty, data: Data::Float(values) })
    }

    fn random(name: &str, ty: &Type, elements: usize) -> Self {
        let mut state =
            name.bytes().fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3));
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        if ty.dtype == DType::I32 {
            return Tensor { ty: ty.clone(), data: Data::Int(vec![0; elements]) };
        }
        let matrix = ty.shape.0.len() == 2;
        let spread = 2.0 * (3.0 / ty.shape.cols().fixed().unwrap_or(1).max(1) as f32).sqrt();
        let draw = |_| if matrix { (uniform() - 0.5) * spread } else { 0.5 + uniform() };
        let values: Vec<f32> = (0..elements).map(draw).collect();
        Self::filled(ty, values.into_iter().map(|v| narrow(ty.dtype, v)).collect())
    }
}

/// A quantized tensor whose scales are numbers.
fn finite_scales(tensor: Tensor) -> Option<Tensor> {
    let finite = match &tensor.data {
        Data::Quant(q) => q.scales.iter().flatten().all(|scale| scale.is_finite()),
        _ => true,
    };
    finite.then_some(tensor)
}

/// Numbers of a float dtype, little endian, as f32; `None` for other dtypes.
pub(crate) fn widen(dtype: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b));
    match dtype {
        DType::F32 => Some(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::BF16 => Some(halves.map(|b| f32::from_bits(u32::from(b) << 16)).collect()),
        DType::F16 => Some(halves.map(|b| f16::from_bits(b).to_f32()).collect()),
        _ => None,
    }
}

fn narrow(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_f32(value).to_f32(),
        DType::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}
