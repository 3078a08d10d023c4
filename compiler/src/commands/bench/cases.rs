//! What is measured, and the room that it takes.

use fireq::work::Tokens;
use fireq_kernels::cuda::BLOCK;
use fireq_runtime::cuda::{PAGE, Room};
use serde::Serialize;

use crate::cli::Bench;
use crate::failure::{Failure, Outcome};

/// One line of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Case {
    /// Prompts are read.
    Prefill {
        /// Sequences.
        sequences: usize,
        /// Tokens of each.
        tokens: usize,
    },
    /// Every sequence gets one token after another.
    Decode {
        /// Sequences.
        sequences: usize,
        /// Tokens of each before.
        after: usize,
    },
}

/// Steps before those that count, in which everything is used once.
pub const WARM_UP: usize = 3;

/// A part of a prompt in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which sequence.
    pub sequence: usize,
    /// Where it begins, how long it is, and whether it is the last of its prompt.
    pub tokens: Tokens,
}

/// The steps that read prompts of so many tokens, each with as many tokens as there is room for.
pub fn chunks(sequences: usize, tokens: usize, most: usize) -> Vec<Vec<Chunk>> {
    let (mut steps, mut step, mut room) = (vec![], vec![], most);
    for sequence in 0..sequences {
        let mut past = 0;
        while past < tokens {
            let count = (tokens - past).min(room);
            let selected = usize::from(past + count == tokens);
            step.push(Chunk { sequence, tokens: Tokens { past, tokens: count, selected } });
            (past, room) = (past + count, room - count);
            if room == 0 {
                steps.push(std::mem::take(&mut step));
                room = most;
            }
        }
    }
    steps.extend((!step.is_empty()).then_some(step));
    steps
}

impl Case {
    /// All that the options ask for; `many` sequences are decoded at once where they do not say.
    pub fn all(options: &Bench, many: &[usize]) -> Outcome<Vec<Self>> {
        let batch = options.batch.as_deref().unwrap_or(many);
        let prompts = options.prefill.as_deref().unwrap_or(&[1024, 2048, 4096]);
        let sequences = options.prefill_batch;
        let prefill = prompts.iter().map(|tokens| Case::Prefill { sequences, tokens: *tokens });
        let decode = options.after.iter().flat_map(|after| {
            batch.iter().map(|sequences| Case::Decode { sequences: *sequences, after: *after })
        });
        let some = |case: &Case| case.sequences() > 0;
        let all: Vec<Case> = prefill.filter(some).chain(decode.filter(some)).collect();
        let empty = |case: &Case| case.before() == 0;
        if all.is_empty()
            || all.iter().any(empty)
            || [options.decode, options.repeat, options.step_tokens].contains(&0)
        {
            return Err(Failure::new("there is nothing to measure").hint("give positive counts"));
        }
        Ok(all)
    }

    /// Sequences of its steps.
    pub fn sequences(self) -> usize {
        let (Case::Prefill { sequences, .. } | Case::Decode { sequences, .. }) = self;
        sequences
    }

    /// Tokens of prompts that are read.
    pub fn before(self) -> usize {
        let (Case::Prefill { tokens: before, .. } | Case::Decode { after: before, .. }) = self;
        before
    }

    /// Positions of a sequence.
    pub fn context(self, decode: usize) -> usize {
        match self {
            Case::Prefill { tokens, .. } => tokens,
            Case::Decode { after, .. } => after.saturating_add(WARM_UP).saturating_add(decode),
        }
    }

    /// The room that it takes, with the prompts that it begins with.
    pub fn room(self, decode: usize, most: usize) -> Room {
        let (sequences, context) = (self.sequences(), self.context(decode));
        let steps = chunks(sequences, self.before(), most);
        let positions = |step: &Vec<Chunk>| -> usize {
            step.iter().map(|chunk| (chunk.tokens.past + chunk.tokens.tokens).next_multiple_of(BLOCK)).sum()
        };
        let tokens = |step: &Vec<Chunk>| -> usize { step.iter().map(|chunk| chunk.tokens.tokens).sum() };
        Room {
            tokens: steps.iter().map(tokens).max().unwrap_or(1).max(sequences),
            selected: sequences,
            sequences,
            context,
            positions: steps.iter().map(positions).max().unwrap_or(1),
            pages: sequences.saturating_mul(context.div_ceil(PAGE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_every_token_once_in_order_and_fill_steps() {
        for (sequences, tokens, most) in [(1, 1, 1), (3, 10, 4), (16, 1024, 8192), (2, 100, 1000), (5, 7, 7)]
        {
            let steps = chunks(sequences, tokens, most);
            assert_eq!(steps.len(), (sequences * tokens).div_ceil(most));
            let mut past = vec![0; sequences];
            for chunk in steps.iter().flatten() {
                assert_eq!(past[chunk.sequence], chunk.tokens.past);
                past[chunk.sequence] += chunk.tokens.tokens;
                assert_eq!(chunk.tokens.selected, usize::from(past[chunk.sequence] == tokens));
            }
            assert_eq!(past, vec![tokens; sequences]);
        }
    }

    #[test]
    fn room_is_for_prompts_and_what_follows_them() {
        let room = Case::Decode { sequences: 3, after: 100 }.room(29, 150);
        let steps = [100 + 50, 50 + 100];
        assert_eq!((room.tokens, room.selected, room.sequences), (steps[0], 3, 3));
        assert_eq!((room.context, room.pages), (100 + WARM_UP + 29, 3 * 132usize.div_ceil(PAGE)));
        // Of the second sequence keys of both steps are read in the second.
        assert_eq!(room.positions, 112 + 112);
        assert_eq!(Case::Prefill { sequences: 1, tokens: 5 }.room(9, 100).context, 5);
    }
}
