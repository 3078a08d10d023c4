//! One launch, with its memory before and after it.

use std::collections::HashMap;
use std::path::Path;

use fireq_kernels::{LaunchShape, TensorMapShape};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as Stored, TensorView};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::compare::Dtype;

/// A launch of a kernel that takes one structure as its parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What it is called in reports.
    pub name: String,
    /// File name of the code, without an extension.
    pub unit: String,
    /// The kernel.
    pub kernel: String,
    /// Sizes of the launch.
    pub shape: LaunchShape,
    /// The structure, with zeros where `fills` go.
    pub params: Vec<u8>,
    /// What is known only where it runs, and the byte of the structure at which it stands.
    pub fills: Vec<(usize, Param)>,
    /// Memory.
    pub buffers: Vec<Buffer>,
    /// What a launch has to do at least; with it the case can be timed.
    pub cost: Option<Cost>,
}

/// What stands in a structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Param {
    /// The address of a byte of a buffer.
    Address {
        /// Which of [`Case::buffers`].
        buffer: usize,
        /// Which byte.
        byte: u64,
    },
    /// A TMA descriptor of a buffer.
    TensorMap {
        /// Which of [`Case::buffers`].
        buffer: usize,
        /// The tensor.
        shape: TensorMapShape,
    },
}

/// Memory of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// What it is called in reports.
    pub name: String,
    /// Bytes.
    pub len: usize,
    /// Before the launch.
    pub init: Init,
    /// After it; memory without is not looked at.
    pub expected: Option<Expected>,
}

/// Memory before a launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Init {
    /// These bytes, and behind them poison.
    Data(#[serde(skip)] Vec<u8>),
    /// Bytes that are not what any kernel should write: NaN in every float format.
    Poison,
    /// Numbers that depend on the seed alone: values between −1 and 1 in a number format, or any bits for codes.
    Random {
        /// Different ones for each.
        seed: u64,
        /// In which format.
        dtype: Dtype,
    },
}

/// Memory after a launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// All bytes.
    #[serde(skip)]
    pub bytes: Vec<u8>,
    /// What they mean.
    pub dtype: Dtype,
    /// How near is near enough.
    pub tolerance: Tolerance,
}

/// How near is near enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Tolerance {
    /// Every bit.
    Exact,
    /// The relative L2 error over the buffer: sums may be taken in another order.
    Relative(f64),
    /// This share of codes may be one step away: what is rounded may differ in its last bit.
    Steps(f64),
}

/// What a launch has to do at least.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of memory read and written.
    pub bytes: u64,
    /// Multiplications and additions of matrix products.
    pub flops: u64,
}

/// Why a case cannot be written or read.
#[derive(Debug, Error)]
pub enum CaseError {
    /// The file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Its form.
    #[error(transparent)]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// Its description.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Something else.
    #[error("{0}")]
    Content(String),
}

/// The key of the description in a file's metadata.
const DESCRIPTION: &str = "case";

impl Case {
    /// Writes a safetensors file that holds everything; what a launch leaves as it was, once.
    pub fn save(&self, path: &Path) -> Result<(), CaseError> {
        let tensors = self.buffers.iter().enumerate().flat_map(|(n, buffer)| {
            let before = if let Init::Data(bytes) = &buffer.init { Some(("before", bytes)) } else { None };
            let after = buffer.expected.as_ref().map(|expected| ("after", &expected.bytes));
            let after = after.filter(|(_, after)| before.is_none_or(|(_, before)| before != *after));
            before.into_iter().chain(after).map(move |(when, bytes)| (format!("{when}.{n}"), bytes))
        });
        let view = |(name, bytes)| Ok((name, TensorView::new(Stored::U8, vec![Vec::len(bytes)], bytes)?));
        let tensors = tensors.map(view).collect::<Result<Vec<_>, CaseError>>()?;
        let metadata = HashMap::from([(DESCRIPTION.to_string(), serde_json::to_string(self)?)]);
        Ok(safetensors::serialize_to_file(tensors, Some(metadata), path)?)
    }

    /// Reads what [`Case::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, CaseError> {
        let bytes = std::fs::read(path)?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
        let text = metadata.metadata().as_ref().and_then(|map| map.get(DESCRIPTION));
        let text = text.ok_or_else(|| CaseError::Content("it has no description of a case".into()))?;
        let mut case: Case = serde_json::from_str(text)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let of = |when: &str, n: usize| {
            Ok::<_, CaseError>(tensors.tensor(&format!("{when}.{n}"))?.data().to_vec())
        };
        for (n, buffer) in case.buffers.iter_mut().enumerate() {
            if let Init::Data(bytes) = &mut buffer.init {
                *bytes = of("before", n)?;
            }
            if let Some(expected) = &mut buffer.expected {
                expected.bytes = of("after", n).or_else(|_| of("before", n))?;
            }
        }
        case.verify()?;
        Ok(case)
    }

    /// Refuses what does not fit together.
    fn verify(&self) -> Result<(), CaseError> {
        let wrong = |what: String| Err(CaseError::Content(what));
        for (at, fill) in &self.fills {
            let (size, Param::Address { buffer, .. } | Param::TensorMap { buffer, .. }) = (fill.size(), fill);
            if at.checked_add(size).is_none_or(|end| end > self.params.len()) || *buffer >= self.buffers.len()
            {
                return wrong(format!("what stands at byte {at} of the parameters does not fit"));
            }
        }
        for Buffer { name, len, init, expected } in &self.buffers {
            let data = if let Init::Data(bytes) = init { bytes.len() } else { 0 };
            if data > *len || expected.as_ref().is_some_and(|expected| expected.bytes.len() != *len) {
                return wrong(format!("buffer `{name}` has another size than its data"));
            }
        }
        Ok(())
    }

    /// The parameters, where the buffers are at these addresses, and `encode` writes TMA descriptors.
    pub fn filled<E>(
        &self,
        addresses: &[u64],
        encode: impl Fn(&TensorMapShape, u64) -> Result<[u8; 128], E>,
    ) -> Result<Vec<u8>, E> {
        let mut params = self.params.clone();
        for (at, fill) in &self.fills {
            let to = &mut params[*at..at + fill.size()];
            match fill {
                Param::Address { buffer, byte } => {
                    to.copy_from_slice(&(addresses[*buffer] + byte).to_le_bytes());
                }
                Param::TensorMap { buffer, shape } => to.copy_from_slice(&encode(shape, addresses[*buffer])?),
            }
        }
        Ok(params)
    }
}

impl Param {
    /// Bytes that it takes in the structure.
    fn size(&self) -> usize {
        match self {
            Param::Address { .. } => 8,
            Param::TensorMap { .. } => 128,
        }
    }
}

/// What memory without data holds: NaN in E4M3, bf16 and f32.
pub const POISON: u8 = 0xFF;

impl Buffer {
    /// The bytes before the launch.
    pub fn before(&self) -> Vec<u8> {
        match &self.init {
            Init::Data(bytes) => {
                let poison = vec![POISON; self.len - bytes.len()];
                [&bytes[..], &poison].concat()
            }
            Init::Poison => vec![POISON; self.len],
            Init::Random { seed, dtype } => dtype.random(*seed, self.len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        let all = |byte| Expected { bytes: vec![byte; 8], dtype: Dtype::Bytes, tolerance: Tolerance::Exact };
        let buffer = |init, expected| Buffer { name: "x".into(), len: 8, init, expected };
        let (short, poison) = (buffer(Init::Data(vec![1, 2, 3]), None), buffer(Init::Poison, Some(all(7))));
        let of_fives = |after| buffer(Init::Data(vec![5; 8]), Some(all(after)));
        Case {
            name: "copy of 8".into(),
            unit: "copy".into(),
            kernel: "copy_0".into(),
            shape: LaunchShape::row(2, 32),
            params: vec![0; 24],
            fills: vec![(8, Param::Address { buffer: 1, byte: 4 })],
            buffers: [short, poison].into_iter().chain([5, 6].map(of_fives)).collect(),
            cost: None,
        }
    }

    #[test]
    fn a_file_holds_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.case");
        case().save(&path).unwrap();
        let read = Case::load(&path).unwrap();
        assert_eq!(read, case());
        assert_eq!(read.buffers[0].before(), [1, 2, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        let params = read.filled(&[0, 0x100], |_, _| Err("no tensor maps")).unwrap();
        assert_eq!(params[8..16], 0x104u64.to_le_bytes());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |change: fn(&mut Case)| {
            let path = dir.path().join("a.case");
            let mut case = case();
            change(&mut case);
            case.save(&path).unwrap();
            Case::load(&path).unwrap_err().to_string()
        };
        assert!(refused(|case| case.fills[0].0 = 17).contains("parameters"));
        assert!(refused(|case| case.fills[0].0 = usize::MAX).contains("parameters"));
        assert!(refused(|case| case.buffers[0].len = 2).contains("`x`"));
        assert!(refused(|case| case.buffers[1].len = 9).contains("`x`"));
    }

    #[test]
    fn files_that_are_no_cases_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.case");
        case().save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 7, 64, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Case::load(&path).is_err(), "{len} bytes");
        }
    }
}
