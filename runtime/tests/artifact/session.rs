//! Sessions against the interpreter: in pieces of any size, with any number of threads.

use std::collections::BTreeMap;

use fireq_ir::interp::{Tensor, interpret};
use fireq_runtime::{Artifact, Limits, Select, Session};

use super::small::{CONTEXT, Small, VOCAB, small};

fn session(small: &Small, tokens: usize, threads: usize) -> Session {
    let artifact = Artifact::open(&small.dir).unwrap();
    Session::open(&artifact, Limits { tokens, context: 1000, threads }).unwrap()
}

fn text(length: usize) -> Vec<u32> {
    (0..length).map(|n| ((n * n * 37 + 11 * n) % VOCAB) as u32).collect()
}

/// Logits of every token, by the interpreter in one step.
fn expected(small: &Small, tokens: &[u32]) -> Vec<f32> {
    let index = |values: Vec<usize>| Tensor::from_i32(&values.iter().map(|v| *v as i32).collect::<Vec<_>>());
    let count: Vec<usize> = (0..tokens.len()).collect();
    let inputs = BTreeMap::from([
        ("tokens".to_string(), index(tokens.iter().map(|t| *t as usize).collect())),
        ("positions".to_string(), index(count.clone())),
        ("select".to_string(), index(count)),
    ]);
    let values: Vec<_> = small.graph.schedule();
    let caches = values.iter().filter_map(|v| match small.graph.op(*v) {
        fireq_ir::Op::Cache { name } => Some((name.to_string(), Tensor::empty_cache(small.graph.ty(*v)))),
        _ => None,
    });
    interpret(&small.graph, &inputs, &caches.collect()).unwrap().outputs[0].to_f32()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn logits_agree_with_the_interpreter_however_the_tokens_come() {
    let Some(small) = small() else { return };
    let tokens = text(30);
    let expected = expected(&small, &tokens);
    for (step, threads) in [(1, 1), (7, 2), (30, 1), (30, 3), (64, 2)] {
        let mut session = session(&small, step, threads);
        assert_close(&session.forward(&tokens, Select::All).unwrap(), &expected);
        assert_eq!((session.len(), session.vocab()), (30, VOCAB));
        session.reset();
        assert!(session.is_empty());
        let last = session.forward(&tokens[..12], Select::Last).unwrap();
        assert_close(&last, &expected[11 * VOCAB..12 * VOCAB]);
        let rest = session.forward(&tokens[12..], Select::All).unwrap();
        assert_close(&rest, &expected[12 * VOCAB..]);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let Some(small) = small() else { return };
    let tokens = text(CONTEXT);
    let one = session(&small, 16, 1).forward(&tokens, Select::All).unwrap();
    for threads in [2, 3, 5] {
        assert_eq!(session(&small, 16, threads).forward(&tokens, Select::All).unwrap(), one);
    }
}

#[test]
fn a_session_ends_with_the_models_context() {
    let Some(small) = small() else { return };
    let mut session = session(&small, 8, 1);
    let error = session.forward(&text(CONTEXT + 1), Select::Last).unwrap_err();
    assert_eq!(error.to_string(), format!("41 tokens after 0 exceed the context of {CONTEXT}"));
    assert!(session.is_empty(), "a refused call reads nothing");
    session.forward(&text(CONTEXT), Select::Last).unwrap();
    assert!(session.forward(&[1], Select::Last).is_err());
    assert!(session.forward(&[], Select::All).unwrap().is_empty());
}

#[test]
fn tokens_outside_the_vocabulary_are_refused_before_anything_is_read() {
    let Some(small) = small() else { return };
    let mut session = session(&small, 2, 1);
    for bad in [VOCAB as u32, u32::MAX] {
        let error = session.forward(&[1, 2, 3, bad], Select::All).unwrap_err();
        assert!(error.to_string().contains("outside the vocabulary of 4096"), "{error}");
        assert!(session.is_empty());
    }
}
