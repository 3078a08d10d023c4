//! `fireq bench`: tokens per second, of one sequence anywhere or of several in a step on a GPU.

mod batched;
mod by_kernel;
mod cases;
mod machine;
mod one;
mod print;
mod runner;
mod shape;

use crate::cli::{Bench, Device};
use crate::failure::{Failure, Outcome};

/// Measures what the options say.
pub fn bench(options: &Bench) -> Outcome {
    let several = options.batch.is_some() || options.random_weights.is_some();
    if options.shape.is_none() && !several {
        return one::bench(options);
    }
    if options.shape.is_none() && options.model.device == Device::Cpu {
        let message = "steps of several sequences, and random weights, are for GPUs";
        return Err(Failure::new(message).hint("use --device cuda"));
    }
    if options.traced.trace.is_some() {
        let message = "--trace shows one repetition, of one sequence";
        return Err(Failure::new(message).hint("leave --trace out, or --batch; --by-kernel goes with both"));
    }
    batched::bench(options)
}
