//! The memory behind a plan's buffers: allocated once, for the largest step, so that addresses never change.

use std::collections::BTreeMap;

use fireq_ir::plan::{ARENA_ALIGN, Buffer, Part, Place, Plan, parts};

use crate::{Bytes, Limits, RuntimeError, Weights};

/// Everything that kernels read and write.
pub(crate) struct Buffers {
    pub inputs: BTreeMap<String, Bytes>,
    /// Each with its elements per row.
    pub outputs: BTreeMap<String, (Bytes, usize)>,
    /// The parts of each.
    pub caches: BTreeMap<String, Vec<Bytes>>,
    limits: Limits,
    arena: Bytes,
    pub weights: Weights,
}

/// The addresses of a buffer's parts.
pub(crate) type Addresses = Vec<*mut u8>;

impl Buffers {
    /// The memory of a verified plan, and for each of its buffers the addresses.
    pub fn new(
        plan: &Plan,
        weights: Weights,
        limits: Limits,
    ) -> Result<(Self, Vec<Addresses>), RuntimeError> {
        let arena = size(plan.arena_bytes_per_token, limits.tokens);
        let mut buffers = Buffers {
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            caches: BTreeMap::new(),
            limits,
            arena: Bytes::zeroed(arena, "scratch")?,
            weights,
        };
        let addresses = plan.buffers.iter().map(|b| buffers.place(b)).collect::<Result<_, _>>()?;
        Ok((buffers, addresses))
    }

    fn place(&mut self, buffer: &Buffer) -> Result<Addresses, RuntimeError> {
        let Limits { tokens, context, .. } = self.limits;
        let Some(list) = parts(&buffer.ty, buffer.storage) else { return self.vector(buffer) };
        match &buffer.place {
            Place::Weight(name) => {
                let parts = self.weights.parts(name, buffer)?;
                // Kernels only read weights: the verifier refuses plans that write one.
                Ok(parts.iter().map(|bytes| bytes.as_ptr().cast_mut()).collect())
            }
            Place::Arena { offset } => Ok(self.arena_addresses(&list, *offset)),
            Place::Cache(name) => {
                let caches = list.iter().map(|part| allocate(part, context, name));
                let caches = caches.collect::<Result<Vec<_>, _>>()?;
                let addresses = caches.iter().map(Bytes::pointer).collect();
                self.caches.insert(name.to_string(), caches);
                Ok(addresses)
            }
            Place::Input(name) => {
                let bytes = allocate(single(&list, name)?, tokens, name)?;
                Ok(insert(&mut self.inputs, name, bytes))
            }
            Place::Output(name) => {
                let part = single(&list, name)?;
                let bytes = allocate(part, tokens, name)?;
                let address = bytes.pointer();
                self.outputs.insert(name.to_string(), (bytes, part.cols));
                Ok(vec![address])
            }
        }
    }

    /// An input that is a vector of as many elements as there are tokens.
    fn vector(&mut self, buffer: &Buffer) -> Result<Addresses, RuntimeError> {
        let Place::Input(name) = &buffer.place else {
            return Err(RuntimeError::Step(format!("a vector of type {} is not an input", buffer.ty)));
        };
        let bytes = Bytes::zeroed(size(buffer.ty.dtype.bits() / 8, self.limits.tokens), name)?;
        Ok(insert(&mut self.inputs, name, bytes))
    }

    fn arena_addresses(&self, list: &[Part], offset: usize) -> Addresses {
        // The verifier keeps every part inside `arena_bytes_per_token`, of which there are `tokens`.
        let address = |at| self.arena.pointer().wrapping_add(at * self.limits.tokens);
        part_offsets(list, offset).map(address).collect()
    }
}

/// Where the parts of a value at `offset` are, in bytes per token.
pub(crate) fn part_offsets(list: &[Part], mut offset: usize) -> impl Iterator<Item = usize> {
    list.iter().map(move |part| {
        let at = offset;
        offset += part.row_bytes().next_multiple_of(ARENA_ALIGN);
        at
    })
}

fn insert(inputs: &mut BTreeMap<String, Bytes>, name: &str, bytes: Bytes) -> Addresses {
    let address = bytes.pointer();
    inputs.insert(name.to_string(), bytes);
    vec![address]
}

fn single<'a>(list: &'a [Part], name: &str) -> Result<&'a Part, RuntimeError> {
    match list {
        [part] => Ok(part),
        _ => Err(RuntimeError::Step(format!("`{name}` is quantized, which inputs and outputs cannot be"))),
    }
}

fn allocate(part: &Part, rows: usize, what: &str) -> Result<Bytes, RuntimeError> {
    Bytes::zeroed(size(part.row_bytes(), rows), what)
}

/// Bytes of `rows` rows; a size that cannot be allocated when it does not fit.
fn size(row_bytes: usize, rows: usize) -> usize {
    row_bytes.saturating_mul(rows)
}
