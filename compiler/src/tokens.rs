//! Text to token ids and back, as the model's own tokenizer files say.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use tokenizers::Tokenizer;

/// A model's tokenizer and its rule for the first token.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    /// Put before every text, unless the tokenizer does so itself.
    bos: Option<u32>,
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
        let bytes = fs::read(&path).map_err(|e| load_error(&path, &e))?;
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| load_error(&path, &e))?;
        let config = read_config(&dir.join("tokenizer_config.json"))?;
        Ok(Tokens { tokenizer, bos: bos.filter(|_| config.add_bos_token != Some(false)) })
    }

    /// The ids of a text, with what starts a text in front.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokensError> {
        let mut ids = self.ids(text, true)?;
        if let Some(bos) = self.bos.filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The ids of a text as part of a longer one, and apart from them what starts a text, if anything does.
    pub fn encode_parts(&self, text: &str) -> Result<(Option<u32>, Vec<u32>), TokensError> {
        let ids = self.ids(text, false)?;
        let start = self.encode("")?.first().copied();
        Ok((start, ids))
    }

    /// A decoder that takes ids one by one and gives text as soon as whole characters are known.
    pub fn stream(&self) -> impl FnMut(u32) -> Result<Option<String>, TokensError> {
        let mut stream = self.tokenizer.decode_stream(true);
        move |id| stream.step(id).map_err(|e| TokensError::Tokenizer(e.to_string()))
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, TokensError> {
        let encoding =
            self.tokenizer.encode(text, special).map_err(|e| TokensError::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
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
    let bytes = fs::read(path).map_err(|e| load_error(path, &e))?;
    serde_json::from_slice(&bytes).map_err(|e| load_error(path, &e))
}
