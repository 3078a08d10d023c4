//! `fireq logits`: the logits of given tokens, for checks that need no tokenizer.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::open::open;
use super::output::write_file;
use crate::cli::Logits;
use crate::failure::{Failure, Outcome};

/// Writes tensor `logits` f32[T,V].
pub fn logits(options: &Logits) -> Outcome {
    let mut engine = open(&options.model)?.engine(options.tokens.len())?;
    let logits = engine.logits(&options.tokens)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![options.tokens.len(), engine.vocab()];
    let failed = |e| Failure::from_error(&e).within("the logits do not make a tensor");
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(failed)?;
    let file = serialize(BTreeMap::from([("logits", view)]), None).map_err(failed)?;
    write_file(&options.output, |out| Ok(out.write_all(&file)?))
}
