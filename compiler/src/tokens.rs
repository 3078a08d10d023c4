//! Text to token ids and back, as the model's own tokenizer files say.
//!
//! The library behind it panics on some files that it does not expect; that is an error here, of the file.

use std::path::{Path, PathBuf};

use fireq_runtime::bounded;
use serde::Deserialize;
use thiserror::Error;
use tokenizers::{Encoding, Tokenizer};

use crate::panics::caught;

/// A model's tokenizer and its rule for the first token.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    /// Put before every text, unless the tokenizer does so itself.
    bos: Option<u32>,
}

/// A text as part of a longer one.
#[derive(Debug)]
pub struct Parts {
    /// What starts a text, if anything does.
    pub start: Option<u32>,
    /// The text's own ids.
    pub ids: Vec<u32>,
    /// Where in the text each of them begins, in bytes.
    pub offsets: Vec<usize>,
}

/// Why text cannot be tokenized.
#[derive(Debug, Error)]
pub enum TokensError {
    /// No usable tokenizer file.
    #[error("cannot load `{}`: {reason}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tokenizer refused a text or an id.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    add_bos_token: Option<bool>,
}

impl Tokens {
    /// Loads `tokenizer.json` of a model directory or artifact. `bos` is the model's first token; it is not added
    /// where `tokenizer_config.json` says so.
    pub fn load(dir: &Path, bos: Option<u32>) -> Result<Self, TokensError> {
        let path = dir.join("tokenizer.json");
        let bytes = bounded::read(&path).map_err(|e| load_error(&path, &e))?;
        let loaded = caught(|| Tokenizer::from_bytes(bytes).map_err(|e| e.to_string()));
        let mut tokenizer = loaded.map_err(|e| load_error(&path, &e))?;
        // As in transformers, a text is neither padded nor cut, whatever the file says: it could say any size.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| load_error(&path, &e))?;
        let config = read_config(&dir.join("tokenizer_config.json"))?;
        Ok(Tokens { tokenizer, bos: bos.filter(|_| config.add_bos_token != Some(false)) })
    }

    /// The ids of a text, with what starts a text in front.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokensError> {
        let mut ids = self.encoding(text, true)?.get_ids().to_vec();
        if let Some(bos) = self.bos.filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The ids of a text as part of a longer one, and apart from them what starts a text.
    pub fn encode_parts(&self, text: &str) -> Result<Parts, TokensError> {
        let encoding = self.encoding(text, false)?;
        let offsets = encoding.get_offsets().iter().map(|(begin, _)| *begin).collect();
        let start = self.encode("")?.first().copied();
        Ok(Parts { start, ids: encoding.get_ids().to_vec(), offsets })
    }

    /// The text of ids; what is no whole character in them is U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokensError> {
        let decode = || self.tokenizer.decode(ids, false).map_err(|e| e.to_string());
        caught(decode).map_err(TokensError::Tokenizer)
    }

    /// A decoder that takes ids one by one and gives text as soon as whole characters are known.
    pub fn stream(&self) -> impl FnMut(u32) -> Result<Option<String>, TokensError> {
        let mut stream = self.tokenizer.decode_stream(true);
        move |id| caught(|| stream.step(id).map_err(|e| e.to_string())).map_err(TokensError::Tokenizer)
    }

    fn encoding(&self, text: &str, special: bool) -> Result<Encoding, TokensError> {
        let encode = || self.tokenizer.encode(text, special).map_err(|e| e.to_string());
        caught(encode).map_err(TokensError::Tokenizer)
    }
}

fn load_error(path: &Path, reason: &dyn ToString) -> TokensError {
    TokensError::Load { path: path.into(), reason: reason.to_string() }
}

/// The tokenizer's own configuration; a model may come without one.
fn read_config(path: &Path) -> Result<TokenizerConfig, TokensError> {
    if !path.exists() {
        return Ok(TokenizerConfig::default());
    }
    let bytes = bounded::read(path).map_err(|e| load_error(path, &e))?;
    serde_json::from_slice(&bytes).map_err(|e| load_error(path, &e))
}
