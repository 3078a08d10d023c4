//! Pipelines as text: `a,b{option=value},fixpoint(c,d),blocks(e,f)`, where a name is a pass or a named pipeline.
//! `fixpoint` runs its passes again until none changes anything, `blocks` runs them on one block after another.

use std::sync::Arc;

use fireq_ir::text::nearest;
use fireq_ir::{Pipeline, Step};

use crate::blocks::Blocks;
use crate::calibration::Calibration;
use crate::error::PipelineError;
use crate::named::{find, names};
use crate::options::read_options;
use crate::table::{PASSES, PassInfo};

/// The pipeline that a text names. An empty text is an empty pipeline.
///
/// ```
/// let pipeline = fireq_passes::pipeline("fixpoint(cse,dce),quantize-weights{group=64},quantize-kv").unwrap();
/// assert_eq!(pipeline.passes().iter().map(|p| p.id()).collect::<Vec<_>>(), ["cse", "dce", "quantize-weights", "quantize-kv"]);
/// assert_eq!(
///     fireq_passes::pipeline("quantise-kv").err().unwrap().to_string(),
///     "unknown pass `quantise-kv`; did you mean `quantize-kv`?"
/// );
/// ```
pub fn pipeline(text: &str) -> Result<Pipeline, PipelineError> {
    pipeline_with(text, &Arc::new(Calibration::random()))
}

/// The pipeline that a text names, its calibrated passes looking at `calibration`.
pub fn pipeline_with(text: &str, calibration: &Arc<Calibration>) -> Result<Pipeline, PipelineError> {
    let mut scanner = Scanner { text, at: 0, depth: 0, calibration };
    let steps = scanner.steps()?;
    match scanner.peek() {
        None => Ok(Pipeline(steps)),
        Some('}') => Err(scanner.error("`}` without `{`")),
        Some(_) => Err(scanner.error("`)` without `(`")),
    }
}

/// Groups in groups: far more than anyone writes, and no text makes the scanner run out of stack.
const MAX_DEPTH: usize = 16;

struct Scanner<'a> {
    text: &'a str,
    /// The byte that is read next.
    at: usize,
    depth: usize,
    calibration: &'a Arc<Calibration>,
}

/// Something that is not a pipeline, at byte `at` of `text`.
pub(crate) fn syntax(text: &str, at: usize, reason: &'static str) -> PipelineError {
    PipelineError::Syntax { text: text.into(), column: text[..at].chars().count() + 1, reason }
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn error(&self, reason: &'static str) -> PipelineError {
        syntax(self.text, self.at, reason)
    }

    /// What stands before the first of `ends`, or before the end.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let rest = &self.text[self.at..];
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// Items separated by commas, up to the end or a closing mark that is not theirs.
    fn steps(&mut self) -> Result<Vec<Step>, PipelineError> {
        let mut steps = vec![];
        let mut item = self.at;
        loop {
            let empty = self.item(&mut steps)?;
            let last = self.peek() != Some(',');
            if empty && !(last && steps.is_empty()) {
                return Err(syntax(self.text, item, "a pass is missing between commas"));
            }
            if last {
                return Ok(steps);
            }
            self.at += 1;
            item = self.at;
        }
    }

    /// Adds the steps of one item. True when there is none.
    fn item(&mut self, steps: &mut Vec<Step>) -> Result<bool, PipelineError> {
        let name = self.until(&[',', '{', '}', '(', ')']).trim();
        match self.peek() {
            Some('(') => steps.push(self.group(name)?),
            Some('{') => {
                let info = pass(name)?;
                let (at, options) = self.braced()?;
                steps.push(self.step(info, at, options)?);
            }
            _ if name.is_empty() => return Ok(true),
            _ => match find(name) {
                Some(named) => steps.extend(self.named(&named)?),
                None => steps.push(self.step(pass(name)?, self.at, "")?),
            },
        }
        self.until_mark()
    }

    /// Only blanks may stand between an item and the mark that ends it.
    fn until_mark(&mut self) -> Result<bool, PipelineError> {
        let start = self.at;
        let rest = self.until(&[',', '{', '}', '(', ')']);
        if rest.trim().is_empty() && !matches!(self.peek(), Some('{' | '(')) {
            return Ok(false);
        }
        Err(syntax(self.text, start, "text after `}` or `)`"))
    }

    fn named(&self, text: &str) -> Result<Vec<Step>, PipelineError> {
        Scanner { text, at: 0, depth: self.depth + 1, calibration: self.calibration }.steps()
    }

    fn group(&mut self, name: &str) -> Result<Step, PipelineError> {
        if !["fixpoint", "blocks"].contains(&name) {
            return Err(self.error("only `fixpoint` and `blocks` take passes in parentheses"));
        }
        let open = self.at;
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(syntax(self.text, open, "too many groups in each other"));
        }
        let steps = self.steps()?;
        self.depth -= 1;
        if self.peek() != Some(')') {
            return Err(syntax(self.text, open, "`(` without `)`"));
        }
        self.at += 1;
        Ok(if name == "fixpoint" { Step::Fixpoint(steps) } else { self.blocks(Pipeline(steps)) })
    }

    fn blocks(&self, steps: Pipeline) -> Step {
        let text = format!("blocks({steps})");
        Step::Pass(Box::new(Blocks::new(steps, self.calibration.clone())), text)
    }

    fn step(&self, info: &'static PassInfo, at: usize, options: &str) -> Result<Step, PipelineError> {
        let options = read_options(info, self.text, at, options, self.calibration)?;
        let pass = info.pass(&options)?;
        Ok(Step::Pass(pass, options.to_string()))
    }

    /// What stands in the braces that begin here, and where it begins.
    fn braced(&mut self) -> Result<(usize, &'a str), PipelineError> {
        let open = self.at;
        self.at += 1;
        let inner = self.until(&['{', '}']);
        match self.peek() {
            Some('}') => self.at += 1,
            Some(_) => return Err(self.error("braces cannot be nested")),
            None => return Err(syntax(self.text, open, "`{` without `}`")),
        }
        Ok((open + 1, inner))
    }
}

fn pass(name: &str) -> Result<&'static PassInfo, PipelineError> {
    let all = || PASSES.iter().map(|p| p.id).chain(names());
    let unknown = || PipelineError::UnknownPass { name: name.into(), hint: nearest(name, all()) };
    PASSES.iter().find(|p| p.id == name).ok_or_else(unknown)
}
