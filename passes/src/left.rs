//! What a pass looked at and left alone. What runs a pass asks again until it has no patches, and where looking takes time,
//! once is enough.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use fireq_ir::{PassError, Patch};

/// Names of sites that were looked at and left alone since the pass last had no patches.
#[derive(Default)]
pub(crate) struct Left(Mutex<BTreeSet<String>>);

impl Left {
    /// True for a site that was left alone.
    pub fn has(&self, site: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(site)
    }

    /// Remembers a site, until a round has no patches.
    pub fn add(&self, site: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(site.into());
    }

    /// A round of a pass over `sites`, each with its name: their patches. Where there is none, the site is left alone.
    pub fn round<S>(
        &self,
        sites: impl Iterator<Item = (String, S)>,
        mut patch: impl FnMut(&S) -> Result<Option<Patch>, PassError>,
    ) -> Result<Vec<Patch>, PassError> {
        let mut patches = vec![];
        for (name, site) in sites.filter(|(name, _)| !self.has(name)) {
            match patch(&site)? {
                Some(patch) => patches.push(patch),
                None => self.add(&name),
            }
        }
        self.end(&patches);
        Ok(patches)
    }

    /// Ends a round.
    pub fn end(&self, patches: &[Patch]) {
        if patches.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}
