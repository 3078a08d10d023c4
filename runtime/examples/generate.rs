//! Text from an artifact, with the runtime as a library: no compiler, no LLVM.
//!
//!     cargo run --release -p fireq-runtime --example generate ARTIFACT PROMPT [TOKENS]

use std::error::Error;
use std::path::Path;

use fireq_runtime::{Artifact, Limits, RuntimeError, Sampler, Sampling, Session};
use tokenizers::Tokenizer;

/// Tells `see` each token that follows `prompt`, up to `count` of them or until the text ends.
fn generate(
    artifact: &Artifact,
    prompt: &[u32],
    count: usize,
    sampling: Sampling,
    mut see: impl FnMut(u32),
) -> Result<(), RuntimeError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Prompts are read in steps of at most so many tokens, which buffers are made for.
    let limits = Limits { tokens: 256, context: artifact.manifest.model.context, threads };
    let mut session = Session::open(artifact, limits)?;
    let mut sampler = Sampler::new(sampling);
    let mut token = session.next(prompt, &sampler.draw())?;
    for _ in 0..count {
        if artifact.manifest.model.eos.contains(&token) || session.len() == artifact.manifest.model.context {
            break;
        }
        see(token);
        token = session.next(&[token], &sampler.draw())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, prompt, rest @ ..] = &arguments[..] else {
        return Err("usage: generate ARTIFACT PROMPT [TOKENS]".into());
    };
    let count = rest.first().map_or(Ok(64), |count| count.parse())?;
    // Hashes are checked before code is loaded.
    let artifact = Artifact::open(Path::new(dir))?;
    let tokenizer = Tokenizer::from_file(artifact.dir.join("tokenizer.json"))?;
    let encoding = tokenizer.encode(prompt.as_str(), true)?;
    let mut tokens = vec![];
    let sampling = Sampling::Random { temperature: 0.8, top_p: 0.95, seed: 1 };
    generate(&artifact, encoding.get_ids(), count, sampling, |token| tokens.push(token))?;
    println!("{prompt}{}", tokenizer.decode(&tokens, true)?);
    Ok(())
}

/// On an artifact whose code any such machine runs.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_same_seed_gives_the_same_tokens_and_another_one_others() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compiler/tests/artifacts/schema-3");
    let artifact = Artifact::open(&dir).unwrap();
    let tokens = |seed| {
        let (mut tokens, sampling) = (vec![], Sampling::Random { temperature: 1.0, top_p: 1.0, seed });
        generate(&artifact, &[3, 1, 4], 20, sampling, |token| tokens.push(token)).unwrap();
        tokens
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
    assert!(tokens(1).len() > 3 && tokens(1).iter().all(|token| *token < 64));
}
