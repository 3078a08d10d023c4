//! What launches of a plan run: kernels, the steps that they are for, and what they take.

use fireq_ir::artifact::TokenRange;
use fireq_kernels::cuda::Unit;
use fireq_kernels::cuda::program::{Argument, Between, Count, When};

/// What a launch of a plan runs, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    /// The kernel.
    pub unit: Unit,
    /// The steps for which it runs, as the manifest has them.
    pub steps: Steps,
    /// The same for the program.
    pub when: When,
    /// What its rows are.
    pub rows: Count,
    /// What it takes; nothing where it runs for a later launch of the plan, with which it does this one.
    pub arguments: Vec<Argument>,
}

impl Run {
    /// A kernel whose rows are tokens, of which there may be any number.
    pub fn of(unit: Unit, arguments: Vec<Argument>) -> Self {
        Run { unit, steps: Steps::default(), when: When::default(), rows: Count::Tokens, arguments }
    }

    /// The kernel, for sequences of at most so many tokens, and of so many keys.
    pub fn of_longest(self, steps: Steps) -> Self {
        let when = When { longest: steps.tokens.map(between), keys: steps.keys.map(between), rows: None };
        Run { steps, when, ..self }
    }

    /// The kernel, for these numbers of rows.
    pub fn of_rows(self, range: TokenRange) -> Self {
        let when = When { rows: Some(between(range)), ..When::default() };
        Run { steps: range.into(), when, ..self }
    }
}

/// What a launch runs, or the name of what is missing with the reason.
pub(super) type Found = Result<Run, Missing>;

fn between(range: TokenRange) -> Between {
    Between(range.from, range.to)
}

/// The steps for which a unit runs: of some numbers of tokens, and for attention of rows of some numbers of keys; of any where
/// there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub tokens: Option<TokenRange>,
    pub keys: Option<TokenRange>,
}

impl From<TokenRange> for Steps {
    fn from(tokens: TokenRange) -> Self {
        Steps { tokens: Some(tokens), keys: None }
    }
}

/// What has no kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// What would do it.
    pub name: String,
    /// Why there is none.
    pub reason: String,
}
