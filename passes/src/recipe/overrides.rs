//! What differs by the name of a weight or a cache.

use std::fmt::Display;

use serde::Deserialize;

use super::Recipe;
use super::values::{Globs, Skip};
use crate::quantize_weights::Group;

/// What is different where one of the patterns matches.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Override {
    tensors: Globs,
    keep: Option<bool>,
    group: Option<Group>,
    skip: Vec<Skip>,
}

/// An override as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Names of weights and caches.
    tensors: Globs,
    /// The weight stays as it is; false, where a later override or `weights.keep` would leave it so, quantizes it.
    keep: Option<bool>,
    /// Channels per scale of the weight.
    group: Option<Group>,
    /// Passes that leave the site alone.
    #[serde(default)]
    skip: Vec<Skip>,
}

impl TryFrom<Written> for Override {
    type Error = String;

    fn try_from(Written { tensors, keep, group, skip }: Written) -> Result<Self, String> {
        if tensors.patterns().next().is_none() {
            return Err("an override without a pattern in `tensors` is for nothing".into());
        }
        if keep.is_none() && group.is_none() && skip.is_empty() {
            return Err("an override wants one of `keep`, `group` and `skip`".into());
        }
        if keep == Some(true) && group.is_some() {
            return Err("a weight that is kept has no groups: `keep` or `group`, not both".into());
        }
        Ok(Override { tensors, keep, group, skip })
    }
}

impl Override {
    /// The patterns, each made into an item of an option.
    fn each(&self, item: impl Fn(&str) -> String) -> Vec<String> {
        self.tensors.patterns().map(item).collect()
    }

    /// The patterns as what is left alone, or with `!` as what is not.
    fn left_alone(&self, alone: bool) -> Vec<String> {
        self.each(|pattern| format!("{}{pattern}", if alone { "" } else { "!" }))
    }
}

impl Recipe {
    /// The option `group` of weights.
    pub(super) fn group(&self) -> String {
        let group = |one: &Override| one.group.map(|group| one.each(|pattern| format!("{pattern}:{group}")));
        let exceptions = self.overrides.iter().filter_map(group).flatten();
        joined([self.weights.group.to_string()].into_iter().chain(exceptions))
    }

    /// The option `keep` of weights.
    pub(super) fn kept(&self) -> String {
        joined(self.overridden().chain(self.weights.keep.patterns().map(Into::into)))
    }

    /// The option `keep` of the head: `weights.keep` is about INT4.
    pub(super) fn kept_head(&self) -> String {
        joined(self.overridden())
    }

    /// What overrides keep or do not.
    fn overridden(&self) -> impl Iterator<Item = String> {
        let keep = |one: &Override| one.keep.map(|keep| one.left_alone(keep));
        self.overrides.iter().filter_map(keep).flatten()
    }

    /// The option `keep` of a pass that overrides can skip.
    pub(super) fn skipped(&self, pass: Skip) -> String {
        let overrides = self.overrides.iter().filter(|one| one.skip.contains(&pass));
        joined(overrides.flat_map(|one| one.left_alone(true)))
    }
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join("|")
}
