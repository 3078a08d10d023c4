//! The channels that a scale covers.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Channels per scale, a number that kernels can decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub(crate) struct Group(pub usize);

impl TryFrom<usize> for Group {
    type Error = String;

    fn try_from(channels: usize) -> Result<Self, String> {
        if channels != 0 && channels.is_multiple_of(32) {
            return Ok(Group(channels));
        }
        Err("scales cover a multiple of 32 channels, the run of codes that kernels decode at once".into())
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<usize>().map_err(|_| "a whole number is wanted")?.try_into()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
