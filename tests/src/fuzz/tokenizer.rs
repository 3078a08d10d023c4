//! `tokenizer.json` and `tokenizer_config.json`.

use fireq::tokens::{Tokens, TokensError};

use super::{files, scratch, show};

const TEXTS: [&str; 4] = ["", "Once upon a time", "a\u{0}\u{fffd} é\u{301}\n\n  😀", "<s>[CLS]</s>"];

/// What loads encodes and decodes texts or says why not.
pub fn tokenizer(bytes: &[u8]) {
    let [tokenizer, config] = files(bytes);
    let files = [("tokenizer.json", tokenizer), ("tokenizer_config.json", config)];
    let files = if config.is_empty() { &files[..1] } else { &files };
    if let Err(error) =
        Tokens::load(&scratch::folder("tokenizer", files), Some(1)).and_then(|tokens| use_it(&tokens))
    {
        show(&error);
    }
}

fn use_it(tokens: &Tokens) -> Result<(), TokensError> {
    let mut step = tokens.stream();
    for text in TEXTS {
        let ids = tokens.encode(text)?;
        assert_eq!(ids.first(), Some(&1), "what starts a text is in front");
        let parts = tokens.encode_parts(text)?;
        assert_eq!(parts.ids.len(), parts.offsets.len());
        tokens.decode(&ids)?;
        ids.iter().chain(&[0, 7, u32::MAX]).try_for_each(|id| step(*id).map(drop))?;
    }
    Ok(())
}
