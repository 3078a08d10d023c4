//! The kernels of products with INT4 weights and E4M3 tokens: for each number of tokens those that were found quickest, by
//! the cost models or on a GPU. For many tokens that may be two, of which the first decodes the weight into a workspace:
//! E4M3, of the sizes that [`LinearFp8::workspace`] has, in scratch beside the plan's, and free again behind the second.

use std::cell::RefCell;
use std::collections::BTreeMap;

use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Kernel, Launch, Plan, Storage};
use fireq_ir::{DType, Format};
use fireq_kernels::cuda::cost_fp8::CTAS;
use fireq_kernels::cuda::program::Argument;
use fireq_kernels::cuda::tuning::{Chosen, Method, Tuning};
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, Output, Unit, Unsupported};

use super::attention::Pipelines;
use super::bind::Binder;
use super::run::{Found, Run};

/// The methods of products, and pipelines of attention: a model has few different ones, and many of each.
pub(super) struct Methods<'a> {
    tuning: &'a Tuning,
    known: RefCell<BTreeMap<String, Vec<Chosen>>>,
    /// Those of attention.
    pub pipelines: Pipelines,
}

impl<'a> Methods<'a> {
    /// As measured, or as the cost models have it.
    pub fn new(tuning: &'a Tuning) -> Self {
        Methods { tuning, known: RefCell::default(), pipelines: Pipelines::default() }
    }

    fn of(&self, linear: &Linear) -> Vec<Chosen> {
        let mut known = self.known.borrow_mut();
        known.entry(linear.to_string()).or_insert_with(|| self.tuning.choose(linear)).clone()
    }
}

/// Every product of a plan that has kernels, in the order of first need.
pub fn products(plan: &Plan) -> Vec<Linear> {
    let mut found: Vec<Linear> = vec![];
    for launch in &plan.launches {
        let Some((addend, output)) = epilogue(plan, launch) else { continue };
        let linear =
            product(plan, launch, (addend, output)).or_else(|_| product(plan, launch, (addend, Output::F32)));
        found.extend(linear.ok().filter(|linear| !found.contains(linear)));
    }
    found
}

/// What a product's epilogue adds and makes of it; none for launches that are no products.
pub(super) fn epilogue(plan: &Plan, launch: &Launch) -> Option<(Addend, Output)> {
    let third = launch.inputs.get(2).map(|b| plan.buffers[*b].ty.dtype);
    match (&launch.kernel, third) {
        (Kernel::Linear, _) => Some((Addend::Nothing, Output::F32)),
        (Kernel::LinearBias, Some(bias)) => Some((Addend::Bias(bias), Output::F32)),
        (Kernel::LinearAdd, Some(DType::F32)) => Some((Addend::Residual, Output::F32)),
        (Kernel::LinearSwiglu { .. }, _) => Some((Addend::Nothing, Output::Swiglu)),
        _ => None,
    }
}

/// The product of a launch's first two operands, or why there is no kernel for it.
pub(super) fn product(
    plan: &Plan,
    launch: &Launch,
    (addend, output): (Addend, Output),
) -> Result<Linear, String> {
    let [x, weight] = [0, 1].map(|n| &plan.buffers[launch.inputs[n]]);
    if x.ty.format() != Format::activation() || weight.storage != Storage::Records {
        return Err(format!("no kernel yet: products of {} and {}", x.ty.format(), weight.ty.format()));
    }
    Linear::of(&weight.ty, addend, output).map_err(|e| format!("no kernel: {e}"))
}

/// What runs for a product whose operands are a launch's first two, by rising numbers of tokens; or why it has no kernels. Its
/// outputs go to `out`.
pub(super) fn linears(
    binder: &Binder<'_>,
    methods: &Methods<'_>,
    launch: &Launch,
    linear: &Linear,
    out: &Argument,
) -> Result<Vec<Found>, String> {
    let mut found = vec![];
    for Chosen { from, to, method, reason } in methods.of(linear) {
        let units = units(linear, &method, reason).map_err(|e| format!("no kernel: {e}"))?;
        let runs = units.into_iter().zip(binder.method(launch, linear, &method, out));
        found.extend(
            runs.map(|(unit, arguments)| Ok(Run::of(unit, arguments).of_rows(TokenRange { from, to }))),
        );
    }
    Ok(found)
}

/// What runs for a method, in order.
pub fn units(linear: &Linear, method: &Method, reason: String) -> Result<Vec<Unit>, Unsupported> {
    match method {
        Method::Records(config) => Ok(vec![linear.unit(config, reason)?]),
        Method::Workspace(config) => Ok(vec![
            linear.decode_unit(
                "the product behind it reads each weight for every tile of tokens, 16-byte loads".into(),
            )?,
            LinearFp8::from(*linear).unit(config, CTAS, reason)?,
        ]),
    }
}
