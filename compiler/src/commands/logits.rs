//! `fireq logits`: the logits of given tokens, for checks that need no tokenizer.

use std::collections::BTreeMap;

use fireq_runtime::Compared;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::open::open;
use super::output::{emit, table, write_file};
use crate::cli::Logits;
use crate::failure::{Failure, Outcome};

/// Writes tensor `logits` f32[T,V], or compares launches.
pub fn logits(options: &Logits) -> Outcome {
    let mut engine = open(&options.model)?.engine(options.tokens.len())?;
    let Some(output) = options.output.as_ref().filter(|_| !options.compare_ops) else {
        return report(&engine.compare(&options.tokens)?);
    };
    let logits = engine.logits(&options.tokens)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![options.tokens.len(), engine.vocab()];
    let failed = |e| Failure::from_error(&e).within("the logits do not make a tensor");
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(failed)?;
    let file = serialize(BTreeMap::from([("logits", view)]), None).map_err(failed)?;
    write_file(output, |out| Ok(out.write_all(&file)?))
}

/// Prints for each kernel its launches and the largest error; a launch that differs is a failure.
fn report(compared: &[Compared]) -> Outcome {
    let mut kernels: Vec<(&str, usize, f64, f64)> = vec![];
    for Compared { kernel, error, tolerance, .. } in compared {
        match kernels.iter_mut().find(|(known, ..)| known == kernel) {
            Some((_, count, worst, _)) => (*count, *worst) = (*count + 1, worst.max(*error)),
            None => kernels.push((kernel, 1, *error, *tolerance)),
        }
    }
    let line = |(kernel, count, error, tolerance): &(&str, usize, f64, f64)| {
        [count.to_string(), format!("{error:.1e}"), format!("{tolerance:.0e}"), (*kernel).to_string()]
    };
    let head = ["launches", "largest error", "allowed", "kernel"].map(String::from);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(kernels.iter().map(line)).collect();
    emit(&table(&rows, 3))?;
    match compared.iter().find(|launch| !launch.agrees()) {
        None => Ok(()),
        Some(Compared { symbol, kernel, error, tolerance }) => Err(Failure::new(format!(
            "`{symbol}` ({kernel}) is the first that differs: relative error {error:.1e}, at most {tolerance:.0e} is allowed"
        ))),
    }
}
