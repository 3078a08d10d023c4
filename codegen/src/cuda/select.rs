//! Which kernels the launches of a plan run.

use fireq_ir::artifact::{CudaKernel, TokenRange};
use fireq_ir::plan::{Kernel, Launch, Place, Plan};
use fireq_ir::{Dim, Format, Type};
use fireq_kernels::cuda::tuning::Tuning;
use fireq_kernels::cuda::{
    Addend, Elementwise, Output, Unit, Unsupported, elementwise, gather, logits, norm_quantize, quantize,
    rms_norm, rope_table, sample, swiglu_quantize,
};

use super::attention::attention;
use super::heads::heads;
use super::linear::{Methods, epilogue, linears};

/// A kernel of a plan, and its unit where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What the manifest says of it.
    pub kernel: CudaKernel,
    /// The unit to compile.
    pub unit: Option<Unit>,
}

/// Rows that one pass over the logits' weights serves, and the rows for which it does: one while decoding; more are cut into
/// eights.
const LOGITS: [(usize, TokenRange); 2] =
    [(1, TokenRange { from: 1, to: Some(1) }), (8, TokenRange { from: 2, to: None })];

/// Every kernel that a plan of fused launches needs, in the order of first need. What is read in place needs none.
pub fn select(plan: &Plan, tuning: &Tuning) -> Vec<Choice> {
    let (mut choices, methods) = (Choices(vec![]), Methods::new(tuning));
    for launch in &plan.launches {
        for found in kernels_of(plan, &methods, launch) {
            choices.add(launch, found);
        }
    }
    for buffer in &plan.buffers {
        let (Place::Output(_), Some(cols)) = (&buffer.place, buffer.ty.shape.cols().fixed()) else {
            continue;
        };
        choices.0.push(compiled(&sample(cols), Steps::default()));
    }
    choices.0
}

/// What a launch runs: a unit, with the steps for which it does; or the name of what is missing with the reason.
pub(super) type Found = Result<(Unit, Steps), Missing>;

/// The steps for which a unit runs: of some numbers of tokens, and for attention of rows of some numbers of keys; of any where
/// there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub tokens: Option<TokenRange>,
    pub keys: Option<TokenRange>,
}

impl From<TokenRange> for Steps {
    fn from(tokens: TokenRange) -> Self {
        Steps { tokens: Some(tokens), keys: None }
    }
}

/// What has no kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// What would do it.
    pub name: String,
    /// Why there is none.
    pub reason: String,
}

/// What a launch runs, in order; of neighbours with numbers of tokens, those of one number: a product, or the decoding of its
/// weight and a product.
fn kernels_of(plan: &Plan, methods: &Methods<'_>, launch: &Launch) -> Vec<Found> {
    let missing = |reason: &str| Err(Missing { name: launch.symbol.to_string(), reason: reason.into() });
    let found = |unit: Result<Unit, Unsupported>| {
        unit.map(|unit| (unit, Steps::default())).or_else(|e| missing(&format!("no kernel: {e}")))
    };
    let unknown = || vec![missing("no kernel yet: passes fuse it into others where they can")];
    let products =
        |epilogue| products(plan, methods, launch, epilogue).unwrap_or_else(|reason| vec![missing(&reason)]);
    let (types, out) = (types(plan, launch), &plan.buffers[launch.output].ty);
    let Some(cols) = cols(out) else { return vec![missing("no kernel: rows have no fixed length")] };
    match (&launch.kernel, &types[..]) {
        (Kernel::Gather, [table, _]) => vec![found(gather(cols, table.dtype))],
        (Kernel::RmsNorm { .. }, [_, weight]) => vec![found(rms_norm(run(weight), weight.dtype))],
        (Kernel::NormQuantize { to, .. }, [_, weight])
            if *to == Format::activation() && run(weight) == cols =>
        {
            vec![found(norm_quantize(cols, weight.dtype))]
        }
        (Kernel::Quantize { to, .. }, _) if *to == Format::activation() => vec![found(quantize(cols))],
        (Kernel::Add, _) => vec![found(elementwise(Elementwise::Add, cols, out.dtype))],
        (Kernel::Mul, _) => vec![found(elementwise(Elementwise::Mul, cols, out.dtype))],
        (Kernel::Bias, [_, b]) => vec![found(elementwise(Elementwise::Bias, cols, b.dtype))],
        (Kernel::Scale, [_, b]) => vec![found(elementwise(Elementwise::Scale, cols, b.dtype))],
        (Kernel::RopeTable, _) => vec![found(rope_table(cols))],
        (Kernel::Linear, [x, weight]) if is_logits(x, weight, out) => {
            let unit = |rows| found(logits(run(x), cols, weight.dtype, rows));
            LOGITS.map(|(rows, range)| unit(rows).map(|(unit, _)| (unit, range.into()))).into()
        }
        (Kernel::Linear | Kernel::LinearBias | Kernel::LinearAdd, _) => {
            epilogue(plan, launch).map_or_else(unknown, products)
        }
        // What lies between the two, f32[T, cols] or f32[T, 2·cols], has scratch beside the plan's.
        (Kernel::LinearSwiglu { to }, _) if *to == Format::activation() => {
            let gated = self::products(plan, methods, launch, (Addend::Nothing, Output::Swiglu));
            let (mut both, rows) = match gated {
                Ok(gated) => (gated, quantize(cols)),
                Err(reason) => {
                    (products((Addend::Nothing, Output::F32)), apart(swiglu_quantize(cols), &reason))
                }
            };
            both.push(found(rows));
            both
        }
        (Kernel::Attention { .. }, _) => match attention(plan, launch) {
            Ok(units) => units.into_iter().map(Ok).collect(),
            Err(reason) => vec![missing(&format!("no kernel: {reason}"))],
        },
        (Kernel::RopeQuantize { .. } | Kernel::RopeAppend { .. } | Kernel::QuantizeAppend { .. }, _) => {
            vec![heads(plan, launch).unwrap_or_else(|reason| missing(&format!("no kernel: {reason}")))]
        }
        (Kernel::Slice { .. }, _) if read_in_place(plan, launch) => vec![],
        _ => unknown(),
    }
}

/// The kernels of a product, by rising numbers of tokens; or why there are none.
fn products(
    plan: &Plan,
    methods: &Methods<'_>,
    launch: &Launch,
    epilogue: (Addend, Output),
) -> Result<Vec<Found>, String> {
    let units = linears(plan, methods, launch, epilogue)?;
    Ok(units.into_iter().map(|(unit, tokens)| Ok((unit, tokens.into()))).collect())
}

/// A unit that gates what a product leaves apart, and the reason why the product does not.
fn apart(unit: Result<Unit, Unsupported>, reason: &str) -> Result<Unit, Unsupported> {
    unit.map(|unit| Unit { reason: format!("{}; gates and ups come apart: {reason}", unit.reason), ..unit })
}

/// Float weights and the rows whose logits are wanted, which are few.
fn is_logits(x: &Type, weight: &Type, out: &Type) -> bool {
    x.scheme.is_plain() && weight.scheme.is_plain() && out.shape.rows() == Dim::sym("L")
}

/// Whether everything that reads a slice can read the whole instead.
fn read_in_place(plan: &Plan, slice: &Launch) -> bool {
    let in_place = |kernel: &Kernel| {
        matches!(
            kernel,
            Kernel::RopeQuantize { .. }
                | Kernel::RopeAppend { .. }
                | Kernel::QuantizeAppend { .. }
                | Kernel::RmsNorm { .. }
        )
    };
    plan.launches.iter().filter(|l| l.inputs.contains(&slice.output)).all(|l| in_place(&l.kernel))
}

fn types<'a>(plan: &'a Plan, launch: &Launch) -> Vec<&'a Type> {
    launch.inputs.iter().map(|b| &plan.buffers[*b].ty).collect()
}

pub(super) fn cols(ty: &Type) -> Option<usize> {
    ty.shape.cols().fixed()
}

/// The length of a vector, or of a row.
fn run(weight: &Type) -> usize {
    cols(weight).unwrap_or(0)
}

struct Choices(Vec<Choice>);

impl Choices {
    /// Notes that `launch` runs a kernel, which may be known already.
    fn add(&mut self, launch: &Launch, found: Found) {
        let choice =
            found.map_or_else(|missing| absent(launch, missing), |(unit, steps)| compiled(&unit, steps));
        let key = |Choice { kernel, unit }: &Choice| {
            let CudaKernel { name, shape, tokens, keys, .. } = kernel;
            (name.clone(), shape.clone(), *tokens, *keys, unit.is_some())
        };
        let wanted = key(&choice);
        let same = |c: &Choice| key(c) == wanted;
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(choice);
            self.0.len() - 1
        });
        let kernel = &mut self.0[at].kernel;
        kernel.count += 1;
        if !kernel.launches.iter().any(|symbol| **symbol == *launch.symbol) {
            kernel.launches.push(launch.symbol.to_string());
        }
    }
}

fn compiled(unit: &Unit, Steps { tokens, keys }: Steps) -> Choice {
    let kernel = CudaKernel {
        name: unit.name.clone(),
        compiled: true,
        launches: vec![],
        count: 0,
        tokens,
        keys,
        shape: unit.shape.clone(),
        config: unit.config.clone(),
        reason: unit.reason.clone(),
    };
    Choice { kernel, unit: Some(unit.clone()) }
}

fn absent(launch: &Launch, missing: Missing) -> Choice {
    let kernel = CudaKernel {
        name: missing.name,
        compiled: false,
        launches: vec![],
        count: 0,
        tokens: None,
        keys: None,
        shape: launch.kernel.mnemonic().into(),
        config: String::new(),
        reason: missing.reason,
    };
    Choice { kernel, unit: None }
}
