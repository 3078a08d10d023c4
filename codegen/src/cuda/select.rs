//! Which kernels the launches of a plan run.

use fireq_ir::artifact::{CudaKernel, TokenRange};
use fireq_ir::plan::{Kernel, Launch, Place, Plan};
use fireq_ir::{Dim, Format, Type};
use fireq_kernels::cuda::program::{self, Count, Program};
use fireq_kernels::cuda::tuning::Tuning;
use fireq_kernels::cuda::{
    Addend, Elementwise, Grid, Output, Unit, Unsupported, elementwise, gather, logits, norm_quantize,
    quantize, rms_norm, rope_table, sample, swiglu_quantize,
};

use super::attention::attention;
use super::bind::{self, Binder, part};
use super::heads::heads;
use super::linear::{Methods, epilogue, linears, product};
use super::run::{Found, Missing, Run, Steps};

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

/// What a plan of fused launches runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Every kernel that it needs, in the order of first need. What is read in place needs none.
    pub choices: Vec<Choice>,
    /// Its launches; none where something has no kernel.
    pub program: Option<Program>,
}

/// The kernels of a plan, products as `tuning` has them.
pub fn select(plan: &Plan, tuning: &Tuning) -> Selection {
    let (mut choices, methods, binder) = (Choices(vec![]), Methods::new(tuning), Binder::new(plan));
    let mut program = Some(Program::default());
    for launch in &plan.launches {
        let found = kernels_of(&binder, &methods, launch);
        program = program.and_then(|program| extended(program, launch, &found));
        for found in found {
            choices.add(launch, found);
        }
    }
    for (n, buffer) in plan.buffers.iter().enumerate() {
        let (Place::Output(_), Some(cols)) = (&buffer.place, buffer.ty.shape.cols().fixed()) else {
            continue;
        };
        let unit = sample(cols);
        choices.0.push(compiled(&unit, Steps::default()));
        let run = Run { rows: Count::Selected, ..Run::of(unit, binder.sample(n)) };
        if let Some(program) = &mut program {
            program.sample = Some(launch_of("sample", &run, None));
        }
    }
    let program = program.map(|program| Program { regions: binder.into_regions(), ..program });
    Selection { choices: choices.0, program }
}

/// The program with what a launch of the plan runs; none where something is missing.
fn extended(mut program: Program, launch: &Launch, found: &[Found]) -> Option<Program> {
    let runs: Vec<&Run> = found.iter().map(Result::as_ref).collect::<Result<_, _>>().ok()?;
    for run in runs.into_iter().filter(|run| !run.arguments.is_empty()) {
        // All kernels wait for what is in front of them, but what is in front of a step is none.
        let overlaps = !program.launches.is_empty();
        let made = launch_of(&launch.symbol, run, Some(launch.output));
        program.launches.push(program::Launch { overlaps, ..made });
    }
    Some(program)
}

fn launch_of(symbol: &str, run: &Run, result: Option<usize>) -> program::Launch {
    let Unit { name, cta, grid, .. } = &run.unit;
    program::Launch {
        function: name.clone(),
        symbol: symbol.into(),
        result,
        when: run.when,
        overlaps: false,
        rows: run.rows,
        cta: *cta,
        grid: *grid,
        arguments: run.arguments.clone(),
    }
}

/// What a launch runs, in order; of neighbours with numbers of tokens, those of one number: a product, or the decoding of its
/// weight and a product.
fn kernels_of(binder: &Binder<'_>, methods: &Methods<'_>, launch: &Launch) -> Vec<Found> {
    let plan = binder.plan;
    let missing = |reason: &str| Err(Missing { name: launch.symbol.to_string(), reason: reason.into() });
    let refused = |e: Unsupported| missing(&format!("no kernel: {e}"));
    let found = |unit: Result<Unit, Unsupported>| {
        let run = |unit| Run { rows: binder.count(launch), ..Run::of(unit, binder.plain(launch)) };
        unit.map(run).or_else(refused)
    };
    let all = |runs: Result<Vec<Run>, String>| match runs {
        Ok(runs) => runs.into_iter().map(Ok).collect(),
        Err(reason) => vec![missing(&format!("no kernel: {reason}"))],
    };
    let unknown = || vec![missing("no kernel yet: passes fuse it into others where they can")];
    let (types, out) = (types(plan, launch), &plan.buffers[launch.output].ty);
    let Some(cols) = cols(out) else { return vec![missing("no kernel: rows have no fixed length")] };
    match (&launch.kernel, &types[..]) {
        (Kernel::Gather, [table, _]) => vec![found(gather(cols, table.dtype))],
        (Kernel::RmsNorm { .. }, [_, weight]) => {
            vec![found(
                rms_norm(run(weight), weight.dtype).map(|unit| each_run(unit, cols / run(weight).max(1))),
            )]
        }
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
            LOGITS.map(|(rows, range)| unit(rows).map(|run| run.of_rows(range))).into()
        }
        (Kernel::Linear | Kernel::LinearBias | Kernel::LinearAdd, _) => {
            let products = |linear| linears(binder, methods, launch, &linear, &part(launch.output, 0));
            let products = |epilogue| product(plan, launch, epilogue).and_then(products);
            epilogue(plan, launch)
                .map_or_else(unknown, |e| products(e).unwrap_or_else(|reason| vec![missing(&reason)]))
        }
        (Kernel::LinearSwiglu { to }, _) if *to == Format::activation() => {
            gated(binder, methods, launch, cols).unwrap_or_else(|reason| vec![missing(&reason)])
        }
        (Kernel::Attention { .. }, _) => all(attention(binder, &methods.pipelines, launch)),
        (Kernel::RopeQuantize { .. } | Kernel::RopeAppend { .. } | Kernel::QuantizeAppend { .. }, _) => {
            all(heads(binder, &methods.pipelines, launch))
        }
        (Kernel::Slice { .. }, _) if read_in_place(plan, launch) => vec![],
        _ => unknown(),
    }
}

/// A unit with a row for each run of a token.
fn each_run(unit: Unit, runs: usize) -> Unit {
    Unit { grid: Grid::Elements { cols: runs, per_cta: 1 }, ..unit }
}

/// The product of gates and ups, and the quantizer of what it leaves in a region beside the plan's buffers: gated rows, or
/// gates and ups where the product does not gate them.
fn gated(
    binder: &Binder<'_>,
    methods: &Methods<'_>,
    launch: &Launch,
    cols: usize,
) -> Result<Vec<Found>, String> {
    let between = |output| -> Result<_, String> {
        let linear = product(binder.plan, launch, (Addend::Nothing, output))?;
        let rows = binder.between(&linear);
        Ok((linears(binder, methods, launch, &linear, &rows)?, rows))
    };
    let (mut runs, unit, arguments) = match between(Output::Swiglu) {
        Ok((runs, rows)) => (runs, quantize(cols), bind::quantize(launch, rows)),
        Err(reason) => {
            let (runs, rows) = between(Output::F32)?;
            (runs, apart(swiglu_quantize(cols), &reason), bind::swiglu(launch, rows))
        }
    };
    runs.push(Ok(Run::of(unit.map_err(|e| format!("no kernel: {e}"))?, arguments)));
    Ok(runs)
}

/// A unit that gates what a product leaves apart, and the reason why the product does not.
fn apart(unit: Result<Unit, Unsupported>, reason: &str) -> Result<Unit, Unsupported> {
    unit.map(|unit| Unit { reason: format!("{}; gates and ups come apart: {reason}", unit.reason), ..unit })
}

/// Float weights, or those of a head, and the rows whose logits are wanted, which are few.
fn is_logits(x: &Type, weight: &Type, out: &Type) -> bool {
    let numbers = weight.scheme.is_plain() || weight.format() == Format::head();
    x.scheme.is_plain() && numbers && out.shape.rows() == Dim::sym("L")
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
            found.map_or_else(|missing| absent(launch, missing), |run| compiled(&run.unit, run.steps));
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
