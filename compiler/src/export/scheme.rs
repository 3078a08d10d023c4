//! How each linear of a checkpoint is quantized, decided by what vLLM loads.
//!
//! It multiplies queries, keys and values by one kernel, and so gate and up: such a set has one scheme or none. Its kernel for
//! INT4 weights and FP8 inputs wants groups of 128 channels, and 128 channels or multiples on both sides; what does not
//! fit is read with inputs in BF16, in groups of 32, 64 or 128, which other groups can be written as where they share a
//! divisor with the number of columns. The rest is numbers.

use std::collections::BTreeMap;

use fireq_ir::{DType, Graph, Type};

use super::align::Aligned;

/// An INT4 scheme of compressed-tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scheme {
    /// Columns under one scale.
    pub group: usize,
    /// Whether inputs are rounded to E4M3, a scale per token.
    pub inputs: bool,
}

/// The schemes of weights, and what is said of them.
#[derive(Debug, Default)]
pub(super) struct Schemes {
    /// By the weight's name; weights without one are numbers.
    pub packed: BTreeMap<String, Scheme>,
    /// Linears whose weights are numbers, by the names of their modules.
    pub ignored: Vec<String>,
    /// Why something is not as fireq has it, and the weights for which that is so.
    pub notes: BTreeMap<String, Vec<String>>,
}

const WEIGHT: &str = ".weight";

/// Channels of the kernel for INT4 weights and FP8 inputs, on either side and under one scale.
const TILE: usize = 128;

/// The least columns under one scale.
const LEAST: usize = 32;

impl Schemes {
    /// Decides for the linears of a checkpoint, the head `head` aside, which is numbers.
    pub fn choose(graph: &Graph, aligned: &Aligned, head: &str, embedding: &str) -> Self {
        let mut sets: BTreeMap<String, Vec<(&str, &Type)>> = BTreeMap::new();
        for (name, value) in &aligned.tensors {
            let ty = graph.ty(*value);
            if ty.shape.0.len() == 2 && name != head && name != embedding {
                sets.entry(set(name)).or_default().push((name, ty));
            }
        }
        let mut schemes = Schemes { ignored: vec![module(head)], ..Schemes::default() };
        if aligned.tensors.get(head).is_some_and(|value| graph.ty(*value).dtype.is_code()) {
            schemes.note("heads are numbers in vLLM", &[head]);
        }
        for set in sets.values() {
            schemes.decide(set, aligned);
        }
        schemes.ignored.sort();
        schemes
    }

    fn decide(&mut self, set: &[(&str, &Type)], aligned: &Aligned) {
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        let groups: Vec<Option<usize>> = set.iter().map(|(_, ty)| group(ty)).collect();
        let inputs: Vec<bool> = names.iter().map(|name| aligned.inputs.contains(*name)).collect();
        let alike = groups.iter().all(|one| *one == groups[0]) && inputs.iter().all(|one| *one == inputs[0]);
        let Some(group) = groups[0].filter(|_| alike) else {
            return self.leave(set, alike);
        };
        let rows: usize = set.iter().filter_map(|(_, ty)| ty.shape.rows().fixed()).sum();
        let tiled = group == TILE && rows.is_multiple_of(TILE);
        if inputs[0] && !tiled {
            self.note(
                "inputs stay BF16: vLLM rounds them for groups of 128 and multiples of 128 channels",
                &names,
            );
        }
        let scheme = Scheme { group, inputs: inputs[0] && tiled };
        self.packed.extend(names.iter().map(|name| ((*name).to_string(), scheme)));
    }

    /// Leaves the linears of a set numbers.
    fn leave(&mut self, set: &[(&str, &Type)], alike: bool) {
        self.ignored.extend(set.iter().map(|(name, _)| module(name)));
        let quantized: Vec<&str> =
            set.iter().filter(|(_, ty)| ty.dtype.is_code()).map(|(name, _)| *name).collect();
        let why = if alike {
            "numbers, for want of groups of 32 columns or multiples"
        } else {
            "numbers, since others that vLLM multiplies along with them are quantized otherwise"
        };
        self.note(why, &quantized);
    }

    fn note(&mut self, why: &str, names: &[&str]) {
        if !names.is_empty() {
            self.notes.entry(why.into()).or_default().extend(names.iter().map(|name| (*name).to_string()));
        }
    }
}

/// The module that a weight belongs to.
pub(super) fn module(weight: &str) -> String {
    weight.strip_suffix(WEIGHT).unwrap_or(weight).to_string()
}

/// What is the same for weights that vLLM multiplies by one kernel.
fn set(weight: &str) -> String {
    let module = module(weight);
    let (parent, own) = module.rsplit_once('.').unwrap_or(("", &module));
    let own = match own {
        "q_proj" | "k_proj" | "v_proj" => "qkv",
        "gate_proj" | "up_proj" => "gate_up",
        own => own,
    };
    format!("{parent}.{own}")
}

/// The columns under one scale as which INT4 codes can be written: all that groups and columns share, 128 at most.
fn group(ty: &Type) -> Option<usize> {
    let (level, cols) = (ty.scheme.0.first().filter(|_| ty.dtype == DType::I4)?, ty.shape.cols().fixed()?);
    let extent = level.extent(cols);
    let all_fit = gcd(extent, gcd(cols, TILE));
    // One group that is longer than its row ends with it.
    let group = if extent >= cols { gcd(cols, TILE) } else { all_fit };
    (group >= LEAST).then_some(group)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use fireq_ir::{Format, Shape};

    use super::*;

    fn ty(cols: usize, group: usize) -> Type {
        Type::plain(DType::F32, Shape::matrix(4, cols)).with_format(&Format::weight(group))
    }

    #[test]
    fn groups_are_written_as_smaller_ones_where_that_is_exact() {
        let cases =
            [(256, 128, 128), (576, 128, 64), (96, 128, 32), (96, 64, 32), (512, 256, 128), (384, 96, 32)];
        for (cols, was, is) in cases {
            assert_eq!(group(&ty(cols, was)), Some(is), "{cols} in groups of {was}");
        }
        assert_eq!(group(&ty(40, 128)), None);
        assert_eq!(group(&ty(200, 64)), None);
        assert_eq!(group(&Type::f32(4usize, 256usize)), None);
    }

    #[test]
    fn what_vllm_multiplies_together_is_a_set() {
        let sets = ["a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight"].map(set);
        assert!(sets.iter().all(|one| *one == "a.qkv"), "{sets:?}");
        assert_eq!([set("b.gate_proj.weight"), set("b.up_proj.weight")], ["b.gate_up", "b.gate_up"]);
        assert_eq!(set("b.down_proj.weight"), "b.down_proj");
    }
}
