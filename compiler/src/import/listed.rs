//! Models whose weights need not be here: what would be imported, from `config.json` and the index of shards alone.

use std::path::Path;

use fireq_ir::DType;

use super::checkpoint::Index;
use super::{Checkpoint, ImportError, ImportOptions, Model, ModelConfig, import_with, layout, shape_of};

/// What there is of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// All of them.
    Here,
    /// The index that lists them, and some of its shards or none.
    Listed {
        /// Shards that the index names.
        shards: usize,
        /// Those of them that are not here.
        absent: usize,
        /// Bytes of all tensors, where the index says it.
        bytes: Option<u64>,
    },
    /// Nothing; their shapes are those that the configuration implies.
    Implied,
}

/// The model in `dir`: with its weights where all are here, else its shapes. The names of an index are checked as those of a
/// checkpoint would be; weights in files that are not read are refused as if they were to be read.
pub fn import_listed(dir: &Path, options: ImportOptions) -> Result<(Model, Weights), ImportError> {
    let index = Index::read(dir)?;
    let Some(index) = index.filter(|_| !Checkpoint::is_single(dir)) else {
        if Checkpoint::is_single(dir) || Checkpoint::other_format(dir).is_some() {
            return Ok((import_with(dir, options)?, Weights::Here));
        }
        let config = ModelConfig::read_for(dir, options.context)?;
        return Ok((shape_of(config, dir, options, DType::BF16, false)?, Weights::Implied));
    };
    let shards = index.shards();
    let absent = shards.iter().filter(|shard| !dir.join(shard).exists()).count();
    if absent == 0 {
        return Ok((import_with(dir, options)?, Weights::Here));
    }
    let config = ModelConfig::read_for(dir, options.context)?;
    if config.packing.is_some() {
        let reason = format!("the weights are packed, and {absent} of {} shards are not here", shards.len());
        return Err(ImportError::unsupported(
            dir,
            reason,
            "download them: what packed weights take is seen in them",
        ));
    }
    layout::check_names(&config, index.names())?;
    let (shards, bytes) = (shards.len(), index.total_size());
    let model = shape_of(config, dir, options, DType::BF16, false)?;
    // Indices do not name dtypes.
    let elements: usize =
        layout::stored_layout(&model.config).values().map(|shape| shape.iter().product::<usize>()).sum();
    let wide = bytes.is_some_and(|bytes| bytes >= 4 * elements as u64);
    let model = if wide { shape_of(model.config, dir, options, DType::F32, false)? } else { model };
    Ok((model, Weights::Listed { shards, absent, bytes }))
}
