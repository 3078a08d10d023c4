//! Text to recipe, with the place of what is wrong.

use fireq_ir::text::{ParseError, nearest};

use super::Recipe;
use super::values::{Method, WeightFit};

/// More than any recipe has.
const MOST_BYTES: usize = 1 << 20;

impl Recipe {
    /// Reads TOML.
    pub fn parse(text: &str) -> Result<Recipe, ParseError> {
        if text.len() > MOST_BYTES {
            let message = format!("{} bytes are no recipe; the most are {MOST_BYTES}", text.len());
            return Err(ParseError::new(text, 0..0, message));
        }
        let recipe: Recipe = toml::from_str(text).map_err(|error| explain(text, &error))?;
        match recipe.unused() {
            Some(message) => Err(ParseError::new(text, 0..0, message)),
            None => Ok(recipe),
        }
    }

    /// What is said and would do nothing.
    fn unused(&self) -> Option<&'static str> {
        let weights = &self.weights;
        let fitted = matches!(weights.method, Method::Nearest | Method::Keep);
        (weights.fit != WeightFit::Absmax && !fitted)
            .then_some("`weights.fit` is for `method = \"nearest\"`; other methods choose scales themselves")
    }
}

fn explain(text: &str, error: &toml::de::Error) -> ParseError {
    let span = error.span().unwrap_or(text.len()..text.len());
    ParseError::new(text, span, error.message()).with_hint(hint(error.message()))
}

/// The nearest of the words that serde names, the first in backticks being the one that was found.
fn hint(message: &str) -> Option<String> {
    let known = ["unknown field", "unknown variant"].iter().any(|start| message.starts_with(start));
    let mut words = message.split('`').skip(1).step_by(2);
    let found = words.next().filter(|_| known)?;
    nearest(found, words)
}
