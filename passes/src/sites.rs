//! Passes that look at each value by itself: a function for a value is all that they are.

use fireq_ir::{Effect, Graph, Pass, PassError, Patch, ValueId};

use crate::error::PipelineError;
use crate::options::Options;
use crate::table::PassInfo;

/// What makes a pass of its options.
pub(crate) enum Build {
    /// Looks at each value by itself, and has no options.
    Sites(Site),
    /// Looks at the graph as a whole, or has options.
    Pass(fn(&Options) -> Result<Box<dyn Pass>, PipelineError>),
}

/// The patch for one value; `None` where the pass does not fire.
pub(crate) type Site = fn(&Graph, ValueId) -> Option<Result<Patch, PassError>>;

impl PassInfo {
    pub(crate) fn pass(&'static self, options: &Options) -> Result<Box<dyn Pass>, PipelineError> {
        match self.build {
            Build::Sites(site) => Ok(Box::new(Sites { info: self, site })),
            Build::Pass(build) => build(options),
        }
    }
}

struct Sites {
    info: &'static PassInfo,
    site: Site,
}

impl Pass for Sites {
    fn id(&self) -> &'static str {
        self.info.id
    }

    fn effect(&self) -> Effect {
        self.info.effect
    }

    fn run(&self, graph: &Graph) -> Result<Vec<Patch>, PassError> {
        graph.schedule().into_iter().filter_map(|value| (self.site)(graph, value)).collect()
    }
}
