//! What a GPU can do at most, to compare with.

use fireq_runtime::cuda::Facts;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// The most that a GPU reads and multiplies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Bytes of memory a second.
    pub bytes: f64,
    /// Dense FP8 operations a second.
    pub operations: f64,
    /// Where the numbers come from.
    pub source: String,
}

/// Parts of names of GPUs, with TB/s of memory and dense TFLOP/s of FP8 as NVIDIA's data sheets have them; the first that
/// matches counts.
const KNOWN: [(&str, f64, f64); 4] =
    [("H200", 4.8, 1979.0), ("H100 PCIe", 2.0, 1513.0), ("H100 NVL", 3.9, 1671.0), ("H100", 3.35, 1979.0)];

/// The peak that is given, or that of a GPU whose name is known.
pub fn peak(given: Option<&[f64]>, facts: &Facts) -> Outcome<Option<Peak>> {
    let of = |source: String, bytes: f64, operations: f64| Peak {
        bytes: bytes * 1e12,
        operations: operations * 1e12,
        source,
    };
    match given {
        None => {
            let known = KNOWN.iter().find(|(name, ..)| facts.name.contains(name));
            Ok(known
                .map(|(name, bytes, operations)| of(format!("data sheet of {name}"), *bytes, *operations)))
        }
        Some([bytes, operations]) if [bytes, operations].iter().all(|n| n.is_finite() && **n > 0.0) => {
            Ok(Some(of("--peak".into(), *bytes, *operations)))
        }
        Some(_) => Err(Failure::new("--peak takes two positive numbers").hint("such as --peak 4.8,1979")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_numbers_can_be_given() {
        let gpu = |name: &str| Facts {
            name: name.into(),
            compute_capability: (9, 0),
            multiprocessors: 132,
            memory: 0,
            l2: 0,
            clock_mhz: 0,
            driver: 0,
        };
        let bytes = |name: &str| peak(None, &gpu(name)).unwrap().map(|peak| peak.bytes / 1e12);
        let names = ["NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "another"];
        assert_eq!(names.map(bytes), [Some(4.8), Some(3.35), Some(2.0), None]);
        assert_eq!(peak(Some(&[1.5, 3.0]), &gpu("H200")).unwrap().unwrap().source, "--peak");
        for wrong in [&[1.0][..], &[1.0, 0.0], &[1.0, 2.0, 3.0], &[f64::NAN, 1.0]] {
            assert!(peak(Some(wrong), &gpu("H200")).is_err());
        }
    }
}
