//! Continuous batching: many texts are continued at once, each joins when there is room and leaves when it ends.
//!
//! A step reads prompts, in chunks where they are long, or gives every running sequence its next token. Pages of the cache are
//! given out as sequences grow; when there are none left, the sequence that came last waits again, and reads what it had later.

use std::collections::VecDeque;

use fireq_kernels::cuda::BLOCK;

use super::room::PAGE;
use super::{Executor, Piece, Room};
use crate::{RuntimeError, Sampling};

/// A text to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to continue: at least one token.
    pub prompt: Vec<u32>,
    /// Most tokens to generate.
    pub tokens: usize,
    /// Tokens that end a text; they are not generated.
    pub eos: Vec<u32>,
    /// How tokens are picked.
    pub sampling: Sampling,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended it.
    Eos,
    /// It has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has another token.
    Token(u32),
    /// It is done.
    End(End),
}

/// Requests on a GPU.
pub struct Batch {
    executor: Executor,
    /// Pages that no sequence has.
    free: Vec<u32>,
    waiting: VecDeque<Member>,
    /// In the order in which they came.
    running: Vec<Member>,
}

/// A request in progress.
struct Member {
    id: usize,
    request: Request,
    /// Prompt and what was generated.
    tokens: Vec<u32>,
    /// How many of them the cache has.
    past: usize,
    pages: Vec<u32>,
}

impl Batch {
    /// Requests on this executor, none so far.
    pub fn new(executor: Executor) -> Self {
        let free = (0..executor.room().pages as u32).rev().collect();
        Batch { executor, free, waiting: VecDeque::new(), running: vec![] }
    }

    /// Adds a request, whose events have this number. One that never has room is an error.
    pub fn add(&mut self, id: usize, request: Request) -> Result<(), RuntimeError> {
        let Room { context, pages, positions, .. } = *self.executor.room();
        let prompt = request.prompt.len();
        let most = prompt.saturating_add(request.tokens).min(context);
        // One that gives its pages back reads everything again, for which a step must have room.
        if prompt == 0 || prompt > context || most > positions.min(pages * PAGE) {
            return Err(RuntimeError::Step(format!(
                "a prompt of {prompt} tokens to be continued by {}: there is room for {context} positions, {positions} in a step, and {pages} pages of {PAGE}",
                request.tokens
            )));
        }
        self.executor.check_tokens(&request.prompt)?;
        let tokens = request.prompt.clone();
        self.waiting.push_back(Member { id, request, tokens, past: 0, pages: vec![] });
        Ok(())
    }

    /// What runs them.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Whether every request is done.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Runs a step, and gives what happened in it.
    pub fn step(&mut self) -> Result<Vec<(usize, Event)>, RuntimeError> {
        let mut events = vec![];
        self.admit(&mut events);
        let counts = self.counts();
        let chosen = self.run(&counts)?;
        let mut chosen = chosen.into_iter();
        for (member, count) in self.running.iter_mut().zip(&counts) {
            member.past += count;
            if *count == 0 || member.past < member.tokens.len() {
                continue;
            }
            let Some(token) = chosen.next() else { break };
            let taken = member.take(token, self.executor.room().context);
            events.extend(taken.into_iter().map(|event| (member.id, event)));
        }
        let ended = |id: usize| events.iter().any(|(of, event)| *of == id && matches!(event, Event::End(_)));
        for member in self.running.extract_if(.., |member| ended(member.id)) {
            self.free.extend(member.pages);
        }
        Ok(events)
    }

    /// Lets requests in as long as there is room for what they have.
    fn admit(&mut self, events: &mut Vec<(usize, Event)>) {
        while let Some(first) = self.waiting.front() {
            let pages = first.tokens.len().div_ceil(PAGE);
            if first.request.tokens == 0 {
                events.push((first.id, Event::End(End::Length)));
                self.waiting.pop_front();
                continue;
            }
            if self.running.len() == self.executor.room().sequences || pages > self.free.len() {
                return;
            }
            let pages = self.free.split_off(self.free.len() - pages);
            let member = self.waiting.pop_front().map(|member| Member { pages, ..member });
            self.running.extend(member);
        }
    }

    /// Tokens that each running sequence has in the next step: those of prompts as far as there is room, or one for all.
    fn counts(&mut self) -> Vec<usize> {
        let unread = |member: &Member| member.tokens.len() - member.past;
        if self.running.iter().all(|member| unread(member) <= 1) {
            self.grow();
            return vec![1; self.running.len()];
        }
        let Room { mut tokens, mut positions, .. } = *self.executor.room();
        let mut count = |member: &Member| {
            let most = unread(member).min(tokens).min(positions.saturating_sub(member.past));
            if unread(member) <= 1 || most == 0 {
                return 0;
            }
            tokens -= most;
            positions = positions.saturating_sub((member.past + most).next_multiple_of(BLOCK));
            most
        };
        self.running.iter().map(&mut count).collect()
    }

    /// Gives every sequence a page for its next token; the last ones wait again where there is none.
    fn grow(&mut self) {
        let mut n = 0;
        while n < self.running.len() {
            if self.running[n].past < self.running[n].pages.len() * PAGE {
                n += 1;
            } else if let Some(page) = self.free.pop() {
                self.running[n].pages.push(page);
            } else if let Some(last) = self.running.pop() {
                self.free.extend(last.pages);
                self.waiting.push_front(Member { past: 0, pages: vec![], ..last });
            }
        }
    }

    /// Runs a step of so many tokens each; gives a token for each sequence that has then read all it has.
    fn run(&mut self, counts: &[usize]) -> Result<Vec<u32>, RuntimeError> {
        let (mut pieces, mut draws) = (vec![], vec![]);
        for (member, count) in self.running.iter().zip(counts).filter(|(_, count)| **count > 0) {
            let Member { request, tokens, past, pages, .. } = member;
            let last = past + count == tokens.len();
            if last {
                draws.push(request.sampling.draw((tokens.len() - request.prompt.len()) as u32));
            }
            let selected = if last { count - 1..*count } else { 0..0 };
            pieces.push(Piece { tokens: &tokens[*past..past + count], past: *past, pages, selected });
        }
        if pieces.is_empty() {
            return Ok(vec![]);
        }
        if draws.is_empty() {
            self.executor.run(&pieces).map(|()| vec![])
        } else {
            self.executor.choose(&pieces, &draws)
        }
    }
}

impl Member {
    /// Takes the next token; what happens then.
    fn take(&mut self, token: u32, context: usize) -> Vec<Event> {
        if self.request.eos.contains(&token) {
            return vec![Event::End(End::Eos)];
        }
        let (read, token_event) = (self.tokens.len(), Event::Token(token));
        self.tokens.push(token);
        if self.tokens.len() - self.request.prompt.len() == self.request.tokens {
            vec![token_event, Event::End(End::Length)]
        } else if read == context {
            vec![token_event, Event::End(End::Context)]
        } else {
            vec![token_event]
        }
    }
}
