//! The kernels of products with INT4 weights and E4M3 tokens: for each number of tokens the one that the cost model finds
//! quickest.

use fireq_ir::Format;
use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Launch, Plan, Storage};
use fireq_kernels::cuda::cost::{Regime, regimes};
use fireq_kernels::cuda::{Addend, Linear, Output, Unit};

/// The units of a product whose operands are the launch's first two, by rising numbers of tokens; or why it has none.
pub(super) fn linears(
    plan: &Plan,
    launch: &Launch,
    addend: Addend,
    output: Output,
) -> Result<Vec<(Unit, TokenRange)>, String> {
    let [x, weight] = [0, 1].map(|n| &plan.buffers[launch.inputs[n]]);
    if x.ty.format() != Format::activation() || weight.storage != Storage::Records {
        return Err(format!("no kernel yet: products of {} and {}", x.ty.format(), weight.ty.format()));
    }
    let refused = |e| format!("no kernel: {e}");
    let linear = Linear::of(&weight.ty, addend, output).map_err(refused)?;
    let unit = |regime: &Regime| {
        let unit = linear.unit(&regime.config, regime.reason()).map_err(refused)?;
        Ok((unit, TokenRange { from: regime.from, to: regime.to }))
    };
    regimes(&linear).iter().map(unit).collect()
}
