//! Pipelines: passes in order, and what is seen of them while they run.

use std::fmt;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::pass::{MAX_ROUNDS, run_pass};
use crate::{Applied, Effect, Graph, Pass, PassError};

/// A step of a pipeline.
pub enum Step {
    /// A pass, and the text that names it with its options.
    Pass(Box<dyn Pass>, String),
    /// Steps that run again until none of them changes anything.
    Fixpoint(Vec<Step>),
}

/// Passes in order.
#[derive(Default)]
pub struct Pipeline(pub Vec<Step>);

/// A pass that has run.
pub struct Ran<'a> {
    /// The pass.
    pub pass: &'a dyn Pass,
    /// The pass with its options, as a pipeline of its own.
    pub text: &'a str,
    /// The graph before it.
    pub before: &'a Graph,
    /// The graph after it.
    pub after: &'a Graph,
    /// The patches that it applied, in order.
    pub patches: &'a [Applied],
    /// How long it took, verification included.
    pub time: Duration,
}

/// Sees a pipeline run.
pub trait Observer {
    /// Why it wants the pipeline to stop.
    type Error;

    /// Before a pass runs.
    fn before(&mut self, _pass: &dyn Pass, _graph: &Graph) -> Result<(), Self::Error> {
        Ok(())
    }

    /// After a pass has run.
    fn after(&mut self, ran: &Ran<'_>) -> Result<(), Self::Error>;
}

/// Sees nothing.
pub struct Unobserved;

impl Observer for Unobserved {
    type Error = std::convert::Infallible;

    fn after(&mut self, _: &Ran<'_>) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A pass that failed, with all that is needed to see it fail again.
#[derive(Debug, Error)]
#[error("pass `{pass}` failed")]
pub struct Failed {
    /// Its id.
    pub pass: String,
    /// The pass with its options, as a pipeline of its own.
    pub pipeline: String,
    /// The graph that it failed on.
    pub before: Graph,
    /// The graph as the pass left it, perhaps invalid.
    pub after: Graph,
    /// Why.
    #[source]
    pub source: PassError,
}

/// Why a pipeline stopped early.
pub enum Stopped<E> {
    /// A pass failed.
    Pass(Box<Failed>),
    /// The observer wanted it.
    Observer(E),
}

/// How a pipeline runs.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// The most patches that are applied; passes after the last of them do not run.
    pub limit: usize,
    /// Verify after every patch, rather than after every pass.
    pub verify_each: bool,
    /// Find notes of patches that take time to find.
    pub explain: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { limit: usize::MAX, verify_each: false, explain: false }
    }
}

impl Pipeline {
    /// Runs every pass. Returns the number of patches applied.
    pub fn run(&self, graph: &mut Graph) -> Result<usize, Box<Failed>> {
        self.run_observed(graph, RunOptions::default(), &mut Unobserved).map_err(|stopped| match stopped {
            Stopped::Pass(failed) => failed,
            Stopped::Observer(never) => match never {},
        })
    }

    /// Runs the passes under the eyes of `observer`. Returns the number of patches applied.
    pub fn run_observed<O: Observer>(
        &self,
        graph: &mut Graph,
        options: RunOptions,
        observer: &mut O,
    ) -> Result<usize, Stopped<O::Error>> {
        let mut run = Run { graph, options, observer, applied: 0 };
        run.steps(&self.0)?;
        Ok(run.applied)
    }

    /// Every pass once, in order.
    pub fn passes(&self) -> Vec<&dyn Pass> {
        fn collect<'a>(steps: &'a [Step], found: &mut Vec<&'a dyn Pass>) {
            for step in steps {
                match step {
                    Step::Pass(pass, _) => found.push(pass.as_ref()),
                    Step::Fixpoint(steps) => collect(steps, found),
                }
            }
        }
        let mut found = vec![];
        collect(&self.0, &mut found);
        found
    }

    /// The relative L2 error that the passes together may make: never more than one lossy pass may.
    pub fn tolerance(&self) -> f64 {
        let sum: f64 = self.passes().iter().map(|pass| pass.effect().tolerance()).sum();
        sum.min(Effect::Lossy.tolerance())
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.0))
    }
}

fn text(steps: &[Step]) -> String {
    let item = |step: &Step| match step {
        Step::Pass(_, text) => text.clone(),
        Step::Fixpoint(steps) => format!("fixpoint({})", text(steps)),
    };
    steps.iter().map(item).collect::<Vec<_>>().join(",")
}

struct Run<'a, O> {
    graph: &'a mut Graph,
    options: RunOptions,
    observer: &'a mut O,
    applied: usize,
}

impl<O: Observer> Run<'_, O> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), Stopped<O::Error>> {
        for step in steps {
            match step {
                Step::Pass(pass, text) => self.pass(pass.as_ref(), text)?,
                Step::Fixpoint(steps) => self.fixpoint(steps)?,
            }
        }
        Ok(())
    }

    /// Steps that never agree stop as a pass does that never ends; the last one is named.
    fn fixpoint(&mut self, steps: &[Step]) -> Result<(), Stopped<O::Error>> {
        for _ in 0..MAX_ROUNDS {
            let before = self.applied;
            self.steps(steps)?;
            if self.applied == before || self.applied == self.options.limit {
                return Ok(());
            }
        }
        Err(Stopped::Pass(Box::new(Failed {
            pass: format!("fixpoint({})", text(steps)),
            pipeline: format!("fixpoint({})", text(steps)),
            before: self.graph.clone(),
            after: self.graph.clone(),
            source: PassError::NoFixpoint(MAX_ROUNDS),
        })))
    }

    fn pass(&mut self, pass: &dyn Pass, text: &str) -> Result<(), Stopped<O::Error>> {
        let left = self.options.limit - self.applied;
        if left == 0 {
            return Ok(());
        }
        self.observer.before(pass, self.graph).map_err(Stopped::Observer)?;
        let before = self.graph.clone();
        let began = Instant::now();
        match run_pass(pass, self.graph, RunOptions { limit: left, ..self.options }) {
            Ok(patches) => {
                self.applied += patches.len();
                let ran = Ran {
                    pass,
                    text,
                    before: &before,
                    after: self.graph,
                    patches: &patches,
                    time: began.elapsed(),
                };
                self.observer.after(&ran).map_err(Stopped::Observer)
            }
            Err(source) => Err(Stopped::Pass(Box::new(Failed {
                pass: pass.id().into(),
                pipeline: text.into(),
                before,
                after: self.graph.clone(),
                source,
            }))),
        }
    }
}
