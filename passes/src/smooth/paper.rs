//! The scales of the paper's authors, by formulas and constants without a search (FireQ sections 4 and 5).

use fireq_ir::expression::leaf_name;
use fireq_ir::interp::eval_constant;
use fireq_ir::{Graph, Op, PassError, ValueId};

use crate::error::PipelineError;
use crate::options::Options;
use crate::table::OptionInfo;

/// How scales come about.
pub(crate) const FORM: OptionInfo = OptionInfo {
    name: "form",
    default: "search",
    doc: "search: the best for calibration data, where it is worth having; paper: by the paper's formula, always",
};

/// What `keep` means for keys.
pub(crate) const KEEP: &str =
    "names of key caches, such as k.3, to leave alone; * matches anything, | separates";

/// Whether `form` is the paper's.
pub(crate) fn is_paper(options: &Options) -> Result<bool, PipelineError> {
    match options.text("form")? {
        "search" => Ok(false),
        "paper" => Ok(true),
        _ => Err(options.refuse("form", "it is search or paper")),
    }
}

/// What can be set for linears.
pub(crate) const LINEARS: &[OptionInfo] = &[
    FORM,
    OptionInfo {
        name: "gate-up",
        default: "0.0096",
        doc: "mean magnitude of gate and up columns, form=paper",
    },
    OptionInfo { name: "down", default: "0.015", doc: "mean magnitude of down columns, form=paper" },
    OptionInfo { name: "v", default: "0.9", doc: "what rows of v are multiplied by, form=paper" },
    OptionInfo {
        name: "codes",
        default: "keep",
        doc: "of weights that a checkpoint holds as I4 codes: keep, and leave their inputs alone, or requantize",
    },
    OptionInfo { name: "keep", default: "", doc: "names of weights whose inputs are left alone" },
];

/// The constants of the paper's λ.
pub(crate) struct Constants {
    gate_up: f32,
    down: f32,
    v: f32,
}

impl Constants {
    /// Those of the options, where they ask for the paper's form.
    pub fn read(options: &Options) -> Result<Option<Self>, PipelineError> {
        let [gate_up, down, v] = ["gate-up", "down", "v"].map(|name| options.positive(name));
        let constants = Constants { gate_up: gate_up?, down: down?, v: v? };
        Ok(is_paper(options)?.then_some(constants))
    }

    /// λ for `x`, which `linears` read: a constant over the mean magnitude of columns for gate and up together and for down,
    /// 1/v for o; none for q, k and v and what else reads a norm.
    pub fn lambda(
        &self,
        graph: &Graph,
        x: ValueId,
        linears: &[ValueId],
    ) -> Result<Option<Vec<f32>>, PassError> {
        let over_means = |c: f32| {
            let means = column_means(graph, linears)?;
            Ok(Some(
                means
                    .iter()
                    .map(|mean| if *mean > 0.0 { (f64::from(c) / mean) as f32 } else { 1.0 })
                    .collect(),
            ))
        };
        match graph.op(x) {
            Op::RmsNorm { .. } if gated(graph, linears) => over_means(self.gate_up),
            Op::Mul => over_means(self.down),
            Op::Attention { .. } => Ok(graph.ty(x).shape.cols().fixed().map(|cols| vec![1.0 / self.v; cols])),
            _ => Ok(None),
        }
    }
}

/// True where one of the linears is the gate: with its bias, if it has one, it goes through SiLU.
fn gated(graph: &Graph, linears: &[ValueId]) -> bool {
    let users = |values: &[ValueId]| values.iter().flat_map(|v| graph.users(*v)).collect::<Vec<_>>();
    let silu = |values: &[ValueId]| values.iter().any(|v| *graph.op(*v) == Op::Silu);
    let first = users(linears);
    let biased: Vec<ValueId> = first.iter().copied().filter(|v| *graph.op(*v) == Op::Bias).collect();
    silu(&first) || silu(&users(&biased))
}

/// The mean magnitude of each column, over the rows of all weights.
fn column_means(graph: &Graph, linears: &[ValueId]) -> Result<Vec<f64>, PassError> {
    let (mut sums, mut rows): (Vec<f64>, usize) = (vec![], 0);
    for linear in linears {
        let weight = graph.operands(*linear)[1];
        let refuse = |reason| PassError::Refused { site: leaf_name(graph, weight).to_string(), reason };
        let weight = eval_constant(graph, weight).map_err(|e| refuse(e.to_string()))?;
        sums.resize(weight.cols(), 0.0);
        rows += weight.rows();
        for row in weight.to_f32().chunks(weight.cols().max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += f64::from(w.abs()));
        }
    }
    Ok(sums.iter().map(|sum| sum / rows.max(1) as f64).collect())
}
