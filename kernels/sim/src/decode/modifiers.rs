//! The dot-separated parts of an opcode.

use crate::types::Type;

/// Modifiers that no one has asked for yet; what is left at the end is unknown.
pub(crate) struct Modifiers<'a> {
    pub base: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    pub fn new(opcode: &'a str) -> Self {
        let mut parts = opcode.split('.');
        Self { base: parts.next().unwrap_or_default(), rest: parts.collect() }
    }

    /// Takes a modifier if it is there.
    pub fn take(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|m| *m == name);
        found.map(|i| self.rest.remove(i)).is_some()
    }

    /// Takes the one of these that is there.
    pub fn take_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find(|(name, _)| self.take(name)).map(|(_, value)| *value)
    }

    /// Takes the first type.
    pub fn ty(&mut self) -> Option<Type> {
        let index = self.rest.iter().position(|m| Type::parse(m).is_some())?;
        Type::parse(self.rest.remove(index))
    }

    /// The first type, left where it is.
    pub fn peek_ty(&self) -> Option<Type> {
        self.rest.iter().find_map(|m| Type::parse(m))
    }

    /// Takes the next modifier, whatever it is.
    pub fn next(&mut self) -> Option<&'a str> {
        (!self.rest.is_empty()).then(|| self.rest.remove(0))
    }

    pub fn left(&self) -> &[&'a str] {
        &self.rest
    }
}
