//! `fireq eval`: perplexity on a text, and how close a model stays to another.

use std::fs;

use fireq::evaluate::{Evaluation, evaluate};
use fireq::tokens::{Parts, Tokens};
use serde_json::{Value, json};

use super::by_site::by_site;
use super::open::{Opened, open, open_path};
use super::output::{emit, emit_json, progress};
use super::worst::{self, Row};
use crate::cli::Eval;
use crate::failure::{Failure, Outcome};

/// Prints the evaluation of a model on a text.
pub fn eval(options: &Eval) -> Outcome {
    if options.by_site {
        return by_site(options);
    }
    let opened = open(&options.model)?;
    let reference = options.against.as_deref().map(|path| open_path(path, &options.model)).transpose()?;
    let text = read_text(options)?;
    let tokens = opened.tokens()?;
    let parts = encode(&tokens, &text, options)?;
    check(options, &opened, reference.as_ref())?;
    let mut engine = opened.engine(options.ctx)?;
    let mut against = reference.as_ref().map(|r| r.engine(options.ctx)).transpose()?;
    let bar = progress("evaluating", parts.ids.len());
    let limits = (options.ctx, options.worst);
    let found = evaluate(&mut engine, against.as_mut(), (parts.start, &parts.ids), limits, |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let list = found.closeness.as_ref().map_or(&[][..], |c| c.worst.list());
    let rows = worst::rows(list, &text, &parts, &tokens)?;
    if options.json {
        emit_json(&as_json(&opened.name, &found, &rows))
    } else {
        emit(&(as_text(&opened.name, &found) + &worst::as_text(&rows)))
    }
}

/// The text to predict.
pub fn read_text(options: &Eval) -> Outcome<String> {
    fs::read_to_string(&options.text).map_err(|e| {
        Failure::from_error(&e)
            .within(format!("cannot read `{}`", options.text.display()))
            .hint("--text is a UTF-8 text file")
    })
}

/// The tokens to predict, two at least.
pub fn encode(tokens: &Tokens, text: &str, options: &Eval) -> Outcome<Parts> {
    let mut parts = tokens.encode_parts(text)?;
    parts.ids.truncate(options.limit.unwrap_or(usize::MAX));
    if parts.ids.len() < 2 {
        let message = format!("`{}` has fewer than two tokens", options.text.display());
        return Err(Failure::new(message).hint("give a longer text"));
    }
    Ok(parts)
}

/// Windows fit the model.
pub fn check_ctx(ctx: usize, context: usize) -> Outcome {
    if (2..=context).contains(&ctx) {
        return Ok(());
    }
    let message = format!("--ctx {ctx} does not lie between 2 and {context}, the context of the model");
    Err(Failure::new(message).hint(format!("give --ctx {}", context.min(512))))
}

fn check(options: &Eval, opened: &Opened, reference: Option<&Opened>) -> Outcome {
    check_ctx(options.ctx, reference.map_or(usize::MAX, |r| r.context).min(opened.context))?;
    match reference.map(|r| r.vocab) {
        Some(vocab) if vocab != opened.vocab => {
            let ours = opened.vocab;
            let message = format!("the vocabularies differ: {ours} tokens, and {vocab} of --against");
            Err(Failure::new(message).hint("compare an artifact with the model it was compiled from"))
        }
        _ => Ok(()),
    }
}

fn as_json(name: &str, found: &Evaluation, worst: &[Row]) -> Value {
    let tokens = found.score.tokens;
    let against = found.closeness.as_ref().map(|c| {
        json!({
            "perplexity": c.reference.perplexity(),
            "mean_kl": c.kl / tokens as f64,
            "top1_agreement": c.same_top as f64 / tokens as f64,
            "worst": worst,
        })
    });
    json!({ "model": name, "tokens": tokens, "perplexity": found.score.perplexity(), "against": against })
}

fn as_text(name: &str, found: &Evaluation) -> String {
    let (tokens, perplexity) = (found.score.tokens, found.score.perplexity());
    let own = format!("perplexity  {perplexity:.4}  ({name}, {tokens} tokens)\n");
    let Some(c) = &found.closeness else { return own };
    let reference = c.reference.perplexity();
    let rise = (perplexity / reference - 1.0) * 100.0;
    let (kl, same) = (c.kl / tokens as f64, c.same_top as f64 / tokens as f64 * 100.0);
    format!(
        "{own}reference   {reference:.4}  ({rise:+.2} %)\nmean KL     {kl:.5} nats\nsame top-1  {same:.2} %\n"
    )
}
