//! Weights to a GPU: stored ones through page-locked memory, so that the host reads the next block of the file while one is on its
//! way; random ones are made there.

use std::ops::Range;

use fireq_ir::plan::{Buffer, Place, Plan, parts};
use rayon::prelude::*;

use super::footprint::aligned;
use super::pinned::Stage;
use super::random::{Blocks, Kind};
use super::{DeviceBytes, Gpu};
use crate::{RuntimeError, Weights};

/// Bytes that are on their way at once.
const STAGE: usize = 16 << 20;
/// Bytes that one thread reads at a time.
const PIECE: usize = 1 << 20;

/// A part of a weight, and where it goes.
struct Segment<'a> {
    at: usize,
    len: usize,
    from: From<'a>,
}

#[derive(Clone, Copy)]
enum From<'a> {
    Stored(&'a [u8]),
    Random(Kind),
}

/// All weights in one piece of memory, and for each buffer where its parts are.
pub(super) fn upload(
    gpu: &Gpu,
    plan: &Plan,
    weights: &Weights,
) -> Result<(DeviceBytes, Vec<Vec<usize>>), RuntimeError> {
    let (mut end, mut places, mut segments) = (0, vec![], vec![]);
    for buffer in &plan.buffers {
        let mut of_buffer = vec![];
        for (len, from) in sources(buffer, weights)? {
            segments.push(Segment { at: end, len, from });
            of_buffer.push(end);
            end += aligned(len);
        }
        places.push(of_buffer);
    }
    let mut held = gpu.allocate(end)?;
    let seed = if let Weights::Random { seed, .. } = weights { *seed } else { 0 };
    let (mut blocks, mut stored) = (Blocks::new(gpu, seed), vec![]);
    for Segment { at, len, from } in segments {
        match from {
            From::Stored(bytes) => stored.push((at, bytes)),
            From::Random(kind) => blocks.fill(&mut held, at, len, kind)?,
        }
    }
    send(gpu, &mut held, &stored)?;
    Ok((held, places))
}

/// Sizes of a weight's parts, and where they come from; none for what is no weight.
fn sources<'a>(buffer: &Buffer, weights: &'a Weights) -> Result<Vec<(usize, From<'a>)>, RuntimeError> {
    let Place::Weight(name) = &buffer.place else { return Ok(vec![]) };
    if matches!(weights, Weights::Random { .. }) && !weights.has(name, buffer) {
        let rows = buffer.ty.shape.rows().fixed().unwrap_or(0);
        let list = parts(&buffer.ty, buffer.storage).unwrap_or_default();
        let stored = list
            .iter()
            .filter_map(|part| Some((part.stored(rows)?.1, From::Random(Kind::of(buffer, part, &list)))));
        return Ok(stored.collect());
    }
    Ok(weights.parts(name, buffer)?.into_iter().map(|bytes| (bytes.len(), From::Stored(bytes))).collect())
}

/// Copies stored bytes, in the order of their places, block after block.
fn send(gpu: &Gpu, held: &mut DeviceBytes, stored: &[(usize, &[u8])]) -> Result<(), RuntimeError> {
    let blocks = blocks(stored);
    let longest = blocks.iter().map(|block| block.to.len()).max().unwrap_or(0);
    if longest == 0 {
        return Ok(());
    }
    let mut stages = [Stage::new(gpu, longest)?, Stage::new(gpu, longest)?];
    for (n, block) in blocks.iter().enumerate() {
        let stage = &mut stages[n % 2];
        block.gather(stage.bytes()?);
        stage.send(held, block.to.start, block.to.len())?;
    }
    Ok(())
}

/// Neighbours that are sent together.
#[derive(Debug, Default, PartialEq)]
struct Block<'a> {
    /// Where they go.
    to: Range<usize>,
    pieces: Vec<(usize, &'a [u8])>,
}

impl Block<'_> {
    /// Puts the pieces to their places in a stage; what lies between is no weight.
    fn gather(&self, stage: &mut [u8]) {
        let (mut rest, mut at, mut places) = (stage, self.to.start, vec![]);
        for (to, bytes) in &self.pieces {
            let (_, from_here) = rest.split_at_mut(to - at);
            let (place, behind) = from_here.split_at_mut(bytes.len());
            places.push((place, *bytes));
            (rest, at) = (behind, to + bytes.len());
        }
        places.into_par_iter().for_each(|(place, bytes)| place.copy_from_slice(bytes));
    }
}

/// Blocks of at most [`STAGE`] bytes, of pieces of at most [`PIECE`]. What lies between two pieces of a block is alignment.
fn blocks<'a>(stored: &[(usize, &'a [u8])]) -> Vec<Block<'a>> {
    let pieces = stored.iter().flat_map(|(at, bytes)| {
        let begins = (*at..).step_by(PIECE);
        begins.zip(bytes.chunks(PIECE))
    });
    let mut blocks: Vec<Block<'_>> = vec![];
    for (at, bytes) in pieces {
        let end = at + bytes.len();
        match blocks.last_mut() {
            Some(block) if at <= aligned(block.to.end) && end - block.to.start <= STAGE => {
                block.to.end = end;
                block.pieces.push((at, bytes));
            }
            _ => blocks.push(Block { to: at..end, pieces: vec![(at, bytes)] }),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_every_byte_where_it_goes_and_none_is_too_long() {
        let bytes: Vec<u8> = (0..40 << 20).map(|n: usize| ((n * 2_654_435_761) >> 7) as u8).collect();
        let (mut stored, mut at) = (vec![], 0);
        let mut rest = &bytes[..];
        for len in [1, 300, 5 << 20, 0, 17 << 20, 256, 7, 9 << 20] {
            let (part, behind) = rest.split_at(len);
            stored.push((at, part));
            (rest, at) = (behind, at + aligned(len));
        }
        // One that something else lies before.
        stored.push((at + 4096, &rest[..1000]));
        let mut found = vec![0; at + 8192];
        let blocks = blocks(&stored);
        let mut stage = vec![0; STAGE];
        for block in &blocks {
            assert!(block.to.len() <= STAGE);
            block.gather(&mut stage);
            for (at, bytes) in &block.pieces {
                let place = at - block.to.start;
                found[*at..at + bytes.len()].copy_from_slice(&stage[place..place + bytes.len()]);
            }
        }
        assert!(stored.iter().all(|(at, bytes)| found[*at..at + bytes.len()] == **bytes));
        assert_eq!(blocks.last().unwrap().to, at + 4096..at + 5096);
        assert!(blocks.len() <= 4, "{}", blocks.len());
    }
}
