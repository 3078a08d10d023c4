//! The kernels of products with INT4 weights and E4M3 tokens: for each number of tokens those that the cost models find
//! quickest. For many tokens that may be two, of which the first decodes the weight into a workspace: E4M3, of the sizes
//! that [`LinearFp8::workspace`] has, in scratch beside the plan's, and free again behind the second.

use fireq_ir::Format;
use fireq_ir::artifact::TokenRange;
use fireq_ir::plan::{Launch, Plan, Storage};
use fireq_kernels::cuda::cost_fp8::{CTAS, Path, Way, paths};
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, Output, Unit, Unsupported};

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
    let refused = |e: Unsupported| format!("no kernel: {e}");
    let linear = Linear::of(&weight.ty, addend, output).map_err(refused)?;
    let mut found = vec![];
    for path in paths(&linear) {
        let tokens = TokenRange { from: path.from, to: path.to };
        found.extend(units(&linear, &path).map_err(refused)?.into_iter().map(|unit| (unit, tokens)));
    }
    Ok(found)
}

/// What runs for the tokens of a path, in order.
fn units(linear: &Linear, path: &Path) -> Result<Vec<Unit>, Unsupported> {
    match &path.way {
        Way::Records(config, _) => Ok(vec![linear.unit(config, path.reason())?]),
        Way::Workspace(config, ..) => Ok(vec![
            linear.decode_unit(
                "the product behind it reads each weight for every tile of tokens, 16-byte loads".into(),
            )?,
            LinearFp8::from(*linear).unit(config, CTAS, path.reason())?,
        ]),
    }
}
