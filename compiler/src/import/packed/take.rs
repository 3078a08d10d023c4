//! The tensors of packed weights, taken out of a checkpoint and checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use fireq_ir::{ConstData, DType, Shape, Type};
use safetensors::Dtype;

use super::super::graph::Tensors;
use super::super::layout::stored_layout;
use super::super::{Checkpoint, ImportError, ModelConfig, StoredTensor};
use super::Packed;
use super::decode::{Groups, Integers};
use super::fp8::Floats;
use super::layout::{Codes, Scales, Zeros};
use super::scheme::{Cover, Method, Packing};

/// Takes the tensors of packed weights out of a checkpoint, and gives the weights. What is left is what it would be without
/// packing; weights that are not packed stay there.
pub(in super::super) fn take(
    config: &ModelConfig,
    checkpoint: &mut Checkpoint,
) -> Result<(Tensors, Option<Packed>), ImportError> {
    let Some(packing) = &config.packing else { return unannounced(checkpoint) };
    let expected = stored_layout(config);
    let bytes = checkpoint.tensors.values().filter_map(|tensor| tensor.data().size()).map(|n| n as u64).sum();
    let mut packed = Packed { method: packing.to_string(), bytes, ..Packed::default() };
    let mut weights = Tensors::new();
    for (name, shape) in
        expected.iter().filter(|(name, shape)| shape.len() == 2 && !name.contains("embed_tokens"))
    {
        let Some(base) = name.strip_suffix(".weight") else { continue };
        let taking = Taking { base, packing, rows: shape[0], cols: shape[1] };
        if !taking.is_packed(&checkpoint.tensors) {
            continue;
        }
        let (ty, data, obstacle) = taking.weight(&mut checkpoint.tensors)?;
        if !expected.contains_key(&format!("{base}.bias")) {
            taking.drop_zeros(&mut checkpoint.tensors);
        }
        weights.insert(name.clone(), (ty, data));
        packed.weights.insert(name.clone(), obstacle);
    }
    Ok((weights, Some(packed)))
}

/// Tensors of packed weights without a word of them in the configuration.
fn unannounced(checkpoint: &Checkpoint) -> Result<(Tensors, Option<Packed>), ImportError> {
    let packed = |name: &&String| name.ends_with(".qweight") || name.ends_with(".weight_packed");
    let Some(name) = checkpoint.tensors.keys().find(packed) else { return Ok((Tensors::new(), None)) };
    let reason = format!("tensor `{}` is packed, and nothing says how", name.escape_debug());
    let hint = "config.json has `quantization_config`, or there is quantize_config.json beside it: download them again";
    Err(ImportError::tensors(reason, hint))
}

type Stored = BTreeMap<String, StoredTensor>;
type Weight = (Type, ConstData, Option<&'static str>);

/// A weight that is taken.
struct Taking<'a> {
    base: &'a str,
    packing: &'a Packing,
    rows: usize,
    cols: usize,
}

impl Taking<'_> {
    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.base)
    }

    fn is_packed(&self, stored: &Stored) -> bool {
        match self.packing.method {
            Method::Gptq { .. } | Method::Awq => stored.contains_key(&self.name("qweight")),
            Method::Compressed { .. } => stored.contains_key(&self.name("weight_packed")),
            Method::Float { .. } => {
                stored.get(&self.name("weight")).is_some_and(|weight| weight.dtype == Dtype::F8_E4M3)
            }
        }
    }

    fn weight(&self, stored: &mut Stored) -> Result<Weight, ImportError> {
        match self.packing.method {
            Method::Gptq { version } => self.gptq(stored, version),
            Method::Awq => self.awq(stored),
            Method::Compressed { symmetric } => self.compressed(stored, symmetric),
            Method::Float { scale } => self.float(stored, scale),
        }
    }

    fn gptq(&self, stored: &mut Stored, version: u32) -> Result<Weight, ImportError> {
        let (rows, cols, bits) = (self.rows, self.cols, self.packing.bits);
        let per = 32 / bits as usize;
        self.divides("qweight", "channels", cols, per)?;
        self.divides("qzeros", "rows", rows, per)?;
        let groups = self.groups(stored, "g_idx")?;
        let count = groups.count(cols);
        let codes = Codes::Columns(self.words(stored, "qweight", &[cols / per, rows])?);
        // The first version stores each zero point less one.
        let more = if version == 1 { (0..per).fold(0, |word, n| word | 1 << (bits as usize * n)) } else { 0 };
        let zeros = Zeros::Columns { words: self.words(stored, "qzeros", &[count, rows / per])?, more };
        let scales = self.scales(stored, "scales", &[count, rows], (1, rows))?;
        Ok(Integers { rows, cols, bits, codes, zeros, scales, groups }.constant())
    }

    fn awq(&self, stored: &mut Stored) -> Result<Weight, ImportError> {
        let (rows, cols, bits) = (self.rows, self.cols, self.packing.bits);
        self.divides("qweight", "rows", rows, 8)?;
        let groups = Groups::Neighbours(self.group());
        let count = groups.count(cols);
        let codes = Codes::Awq(self.words(stored, "qweight", &[cols, rows / 8])?);
        let zeros = Zeros::Awq(self.words(stored, "qzeros", &[count, rows / 8])?);
        let scales = self.scales(stored, "scales", &[count, rows], (1, rows))?;
        Ok(Integers { rows, cols, bits, codes, zeros, scales, groups }.constant())
    }

    fn compressed(&self, stored: &mut Stored, symmetric: bool) -> Result<Weight, ImportError> {
        let (rows, cols, bits) = (self.rows, self.cols, self.packing.bits);
        let per = 32 / bits as usize;
        self.shape(stored)?;
        let groups = self.groups(stored, "weight_g_idx")?;
        let count = groups.count(cols);
        let codes = Codes::Rows(self.words(stored, "weight_packed", &[rows, cols.div_ceil(per)])?);
        let zeros = if symmetric {
            Zeros::Middle
        } else if self.packing.cover == Cover::Tensor {
            return Err(self.wrong("weight_zero_point", "is of a whole weight, which is not read"));
        } else {
            Zeros::Rows(self.words(stored, "weight_zero_point", &[rows.div_ceil(per), count])?)
        };
        let scales = if self.packing.cover == Cover::Tensor {
            self.scales(stored, "weight_scale", &[1], (0, 0))?
        } else {
            self.scales(stored, "weight_scale", &[rows, count], (count, 1))?
        };
        self.drop_static(stored);
        Ok(Integers { rows, cols, bits, codes, zeros, scales, groups }.constant())
    }

    fn float(&self, stored: &mut Stored, scale: &str) -> Result<Weight, ImportError> {
        let (rows, cols) = (self.rows, self.cols);
        let codes = self.tensor(stored, "weight", &[Dtype::F8_E4M3], &[rows, cols])?.data();
        let (block, shape, steps) = match self.packing.cover {
            Cover::Block(tall, wide) => {
                let [down, across] = [rows.div_ceil(tall), cols.div_ceil(wide)];
                ((tall, wide), vec![down, across], (across, 1))
            }
            Cover::Row | Cover::Group(_) => ((1, cols), vec![rows, 1], (1, 0)),
            Cover::Tensor => ((rows, cols), vec![1], (0, 0)),
        };
        let scales = self.scales(stored, scale, &shape, steps)?;
        self.drop_static(stored);
        let ty = Type::plain(DType::F32, Shape::matrix(rows, cols));
        let source = Floats { rows, cols, codes, scales, block };
        Ok((ty, ConstData::decoded(Arc::new(source)), Some("FP8")))
    }

    /// Neighbours that share a scale.
    fn group(&self) -> usize {
        match self.packing.cover {
            Cover::Group(size) => size.min(self.cols),
            _ => self.cols,
        }
    }

    /// The groups of channels, as a list gives them where there is one.
    fn groups(&self, stored: &mut Stored, suffix: &str) -> Result<Groups, ImportError> {
        let (cols, size) = (self.cols, self.group());
        let count = cols.div_ceil(size);
        if !stored.contains_key(&self.name(suffix)) {
            return Ok(Groups::Neighbours(size));
        }
        let words = self.words(stored, suffix, &[cols])?;
        let bytes = words.bytes().unwrap_or_default();
        let listed: Vec<u32> = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        words.release();
        // compressed-tensors writes −1 where the order of channels is that of their groups.
        if listed.iter().all(|group| *group == u32::MAX)
            || listed.iter().enumerate().all(|(k, g)| *g as usize == k / size)
        {
            return Ok(Groups::Neighbours(size));
        }
        match listed.iter().enumerate().find(|(_, group)| **group as usize >= count) {
            None => Ok(Groups::Listed(listed, count)),
            Some((k, group)) => {
                let reason = format!("puts channel {k} into group {} of {count}", *group as i32);
                Err(self.wrong(suffix, &reason))
            }
        }
    }

    /// Checks the shape that a packed weight carries.
    fn shape(&self, stored: &mut Stored) -> Result<(), ImportError> {
        let shape = self.tensor(stored, "weight_shape", &[Dtype::I64, Dtype::I32], &[2])?;
        let (data, wide) = (shape.data(), shape.dtype == Dtype::I64);
        let bytes = data.bytes().unwrap_or_default();
        let number = |b: &[u8]| b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        let found: Vec<u64> = bytes.chunks_exact(if wide { 8 } else { 4 }).map(number).collect();
        if found == [self.rows as u64, self.cols as u64] {
            return Ok(());
        }
        Err(self.wrong(
            "weight_shape",
            &format!("is {found:?}, config.json implies [{}, {}]", self.rows, self.cols),
        ))
    }

    fn words(&self, stored: &mut Stored, suffix: &str, shape: &[usize]) -> Result<ConstData, ImportError> {
        Ok(self.tensor(stored, suffix, &[Dtype::I32], shape)?.data())
    }

    fn scales(
        &self,
        stored: &mut Stored,
        suffix: &str,
        shape: &[usize],
        (row, group): (usize, usize),
    ) -> Result<Scales, ImportError> {
        let tensor = self.tensor(stored, suffix, &[Dtype::F16, Dtype::BF16, Dtype::F32], shape)?;
        let dtype = super::super::dtype(tensor.dtype);
        Ok(Scales { data: tensor.data(), dtype, row, group })
    }

    /// A tensor of one of these dtypes and this shape, to which ones may be missing or added.
    fn tensor(
        &self,
        stored: &mut Stored,
        suffix: &str,
        dtypes: &[Dtype],
        shape: &[usize],
    ) -> Result<StoredTensor, ImportError> {
        let tensor = stored.remove(&self.name(suffix)).ok_or_else(|| self.wrong(suffix, "is missing"))?;
        if !dtypes.contains(&tensor.dtype) {
            let wanted: Vec<String> = dtypes.iter().map(ToString::to_string).collect();
            return Err(
                self.wrong(suffix, &format!("has dtype {}, it takes {}", tensor.dtype, wanted.join(" or ")))
            );
        }
        let sides = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        if sides(&tensor.shape) != sides(shape) {
            return Err(self.wrong(suffix, &format!("has shape {:?}, it takes {shape:?}", tensor.shape)));
        }
        Ok(tensor)
    }

    fn divides(&self, suffix: &str, of: &str, all: usize, by: usize) -> Result<(), ImportError> {
        if all.is_multiple_of(by) {
            return Ok(());
        }
        Err(self.wrong(suffix, &format!("packs {by} {of} to a word, and there are {all}")))
    }

    /// Scales of static activations, which recipes choose themselves.
    fn drop_static(&self, stored: &mut Stored) {
        for suffix in ["input_scale", "input_zero_point", "activation_scale"] {
            stored.remove(&self.name(suffix));
        }
    }

    /// The bias that some tools write for a linear that has none.
    fn drop_zeros(&self, stored: &mut Stored) {
        let name = self.name("bias");
        let zeros = stored.get(&name).is_some_and(|bias| {
            bias.shape == [self.rows]
                && bias.data().bytes().is_some_and(|bytes| bytes.iter().all(|b| *b == 0))
        });
        if zeros {
            stored.remove(&name);
        }
    }

    fn wrong(&self, suffix: &str, what: &str) -> ImportError {
        let reason = format!("tensor `{}` {what}", self.name(suffix).escape_debug());
        let hint = format!("the checkpoint is {}; download it again, or pack it again", self.packing);
        ImportError::tensors(reason, &hint)
    }
}
