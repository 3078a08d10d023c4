//! Values of options that differ by name: `128|*.down_proj.weight:64|lm_head*:32` is 128, but 64 or 32 where the pattern
//! before it matches. The first pattern that matches decides.

use std::str::FromStr;

use crate::glob::matches;

/// A value, and others for names that match a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ByName<T> {
    default: T,
    exceptions: Vec<(String, T)>,
}

impl<T> ByName<T> {
    /// The value for what has this name.
    pub fn of(&self, name: &str) -> &T {
        let exception = self.exceptions.iter().find(|(pattern, _)| matches(pattern, name));
        exception.map_or(&self.default, |(_, value)| value)
    }
}

impl<T: FromStr<Err = String>> FromStr for ByName<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (default, exceptions) = text.split_once('|').map_or((text, None), |(d, rest)| (d, Some(rest)));
        let exceptions = exceptions.into_iter().flat_map(|rest| rest.split('|'));
        Ok(ByName {
            default: default.trim().parse()?,
            exceptions: exceptions.map(exception).collect::<Result<_, _>>()?,
        })
    }
}

fn exception<T: FromStr<Err = String>>(text: &str) -> Result<(String, T), String> {
    let (pattern, value) = text.rsplit_once(':').ok_or("an exception is `pattern:value`")?;
    if pattern.trim().is_empty() {
        return Err("an exception without a pattern matches nothing".into());
    }
    Ok((pattern.trim().into(), value.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize_weights::Group;

    fn groups(text: &str) -> Result<ByName<Group>, String> {
        text.parse()
    }

    #[test]
    fn the_first_exception_that_matches_decides() {
        let groups = groups("128 | *.3.down : 32 | *.down:64").unwrap();
        assert_eq!(*groups.of("layers.3.down"), Group(32));
        assert_eq!(*groups.of("layers.2.down"), Group(64));
        assert_eq!(*groups.of("layers.2.up"), Group(128));
    }

    #[test]
    fn every_value_is_checked() {
        assert_eq!(groups("128|*.down").unwrap_err(), "an exception is `pattern:value`");
        assert_eq!(groups("128|:64").unwrap_err(), "an exception without a pattern matches nothing");
        assert_eq!(groups("128|").unwrap_err(), "an exception is `pattern:value`");
        assert_eq!(groups("128|a:b").unwrap_err(), "a whole number is wanted");
        assert!(groups("128|a:33").unwrap_err().starts_with("scales cover a multiple of 32"));
        assert!(groups("|a:32").is_err());
    }
}
