//! The sites of a pipeline: every patch of its lossy passes, and the graph that has it alone.

use std::collections::BTreeSet;
use std::rc::Rc;

use fireq_ir::plan::lower;
use fireq_ir::verify::verify;
use fireq_ir::{Effect, Failed, Graph, Moved, Pass, PassError, Patch, Pipeline, Step, propose};

use super::BySiteError;
use crate::compile::{Sizes, sizes as sizes_of};
use crate::view::number;

/// A place in a model that a lossy pass quantizes.
pub struct Site {
    /// The pass.
    pub pass: String,
    /// Where, by name.
    pub name: String,
    /// The layer that it belongs to, where the name tells.
    pub layer: Option<usize>,
    /// The formats that it brings into the graph.
    pub formats: Vec<String>,
    /// The site that makes this one possible, which is quantized together with it.
    pub upon: Option<usize>,
    /// What it saves, beyond what the other does.
    pub saved: Saved,
    base: Rc<Graph>,
    changes: Vec<Change>,
}

/// Bytes that a site saves; negative where it takes some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Of weights.
    pub weights: i64,
    /// Of KV caches, for each position.
    pub cache_per_token: i64,
}

/// A step from a base graph to a site's.
#[derive(Clone)]
enum Change {
    Patch(Box<Patch>),
    /// Passes that keep the numbers.
    Passes(Rc<Pipeline>),
}

/// Every site of a pipeline, pass by pass. A site that an earlier pass of the same name had is not another one.
pub fn sites(model: &Graph, pipeline: Pipeline) -> Result<Vec<Site>, BySiteError> {
    let text = pipeline.to_string();
    let (mut base, mut found): (_, Vec<Site>) = (Rc::new(model.clone()), vec![]);
    for step in pipeline.0 {
        if let Some((pass, text)) = lossy(&step)? {
            add_sites(pass, text, &base, &mut found)?;
            continue;
        }
        let passes = Rc::new(Pipeline(vec![step]));
        for site in &mut found {
            site.changes.push(Change::Passes(passes.clone()));
        }
        base = Rc::new(run(&passes, &base)?);
    }
    if found.is_empty() { Err(BySiteError::NoSites(text)) } else { Ok(found) }
}

/// The pass of a step that gives up precision.
fn lossy(step: &Step) -> Result<Option<(&dyn Pass, &str)>, BySiteError> {
    match step {
        Step::Pass(pass, text) => Ok((pass.effect() == Effect::Lossy).then_some((&**pass, &**text))),
        Step::Fixpoint(steps) => match steps.iter().map(lossy).find(|inner| !matches!(inner, Ok(None))) {
            None => Ok(None),
            Some(Ok(inner)) => Err(BySiteError::Group(inner.map_or("", |(_, text)| text).into())),
            Some(Err(error)) => Err(error),
        },
    }
}

fn run(passes: &Pipeline, graph: &Graph) -> Result<Graph, BySiteError> {
    let mut graph = graph.clone();
    let failed = |Failed { pipeline, source, .. }| BySiteError::Pass { pass: pipeline, source };
    passes.run(&mut graph).map_err(|error| failed(*error))?;
    Ok(graph)
}

/// Adds the patches that a pass proposes by itself, and then those that it proposes only where another was applied.
fn add_sites(
    pass: &dyn Pass,
    text: &str,
    base: &Rc<Graph>,
    found: &mut Vec<Site>,
) -> Result<(), BySiteError> {
    let failed = |source| BySiteError::Pass { pass: text.into(), source };
    let mut known: BTreeSet<String> =
        found.iter().filter(|site| site.pass == pass.id()).map(|site| site.name.clone()).collect();
    let before = found.len();
    for upon in std::iter::once(None).chain((0..before).map(Some)) {
        let (graph, base, changes) = match upon.map(|n: usize| &found[n]) {
            None => ((**base).clone(), base.clone(), vec![]),
            Some(site) => (site.graph()?, site.base.clone(), site.changes.clone()),
        };
        let patches = propose(pass, &graph, false).map_err(failed)?;
        let new: Vec<Patch> = patches.into_iter().filter(|patch| !known.contains(&patch.site)).collect();
        known.extend(new.iter().map(|patch| patch.site.clone()));
        let sizes = if new.is_empty() { Sizes::default() } else { sizes(&graph, "the model")? };
        for patch in new {
            let mut site = Site::new(pass, patch, upon, (base.clone(), changes.clone()));
            site.look(&graph, sizes)?;
            found.push(site);
        }
    }
    Ok(())
}

fn sizes(graph: &Graph, site: &str) -> Result<Sizes, BySiteError> {
    let lowered = lower(graph).map_err(|source| BySiteError::Lower { site: site.into(), source })?;
    Ok(sizes_of(&lowered.plan))
}

impl Site {
    fn new(
        pass: &dyn Pass,
        patch: Patch,
        upon: Option<usize>,
        (base, mut changes): (Rc<Graph>, Vec<Change>),
    ) -> Self {
        let (pass, name) = (pass.id().to_string(), patch.site.clone());
        changes.push(Change::Patch(Box::new(patch)));
        let (layer, saved) = (number(&name), Saved::default());
        Site { pass, name, layer, formats: vec![], upon, saved, base, changes }
    }

    /// Fills in what the site's graph shows beside the one `before` it.
    fn look(&mut self, before: &Graph, sizes_before: Sizes) -> Result<(), BySiteError> {
        let graph = self.graph()?;
        let new = graph.schedule().into_iter().filter(|v| !before.contains(*v)).map(|v| graph.ty(v));
        for format in new.filter(|ty| ty.dtype.is_code()).map(|ty| ty.format().to_string()) {
            if !self.formats.contains(&format) {
                self.formats.push(format);
            }
        }
        let after = sizes(&graph, &self.name)?;
        let less = |before: u64, after: u64| before as i64 - after as i64;
        self.saved = Saved {
            weights: less(sizes_before.weights, after.weights),
            cache_per_token: less(sizes_before.cache_per_token, after.cache_per_token),
        };
        Ok(())
    }

    /// The model with this site quantized, and the one that it needs.
    pub fn graph(&self) -> Result<Graph, BySiteError> {
        let mut graph = (*self.base).clone();
        for change in &self.changes {
            match change {
                Change::Patch(patch) => self.apply(&mut graph, patch)?,
                Change::Passes(passes) => graph = run(passes, &graph)?,
            }
        }
        Ok(graph)
    }

    fn apply(&self, graph: &mut Graph, patch: &Patch) -> Result<(), BySiteError> {
        let failed = |source| BySiteError::Pass { pass: self.pass.clone(), source };
        let refused = |source| failed(PassError::Patch { site: patch.site.clone(), source });
        graph.apply(patch.clone(), &mut Moved::new()).map_err(refused)?;
        verify(graph).map_err(|errors| failed(errors.into()))
    }
}
