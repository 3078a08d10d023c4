//! The runtime on a driver whose GPU is the simulator: every kernel of the demo model's plan against the interpreter, sequences
//! among others against themselves alone, and greedy texts against the CPU's.

#![cfg(feature = "llvm")]

mod batch;
mod graphs;
mod shape;
mod simulated;
mod tiny;

use std::path::Path;

use fireq::tokens::Tokens;
use fireq_runtime::cuda::{Executor, Gpu, PAGE, Piece, Room};
use fireq_runtime::{Artifact, Limits, Sampling, Select, Session, pick};
use fireq_tests::relative_error;

const ROOM: Room = Room { tokens: 160, selected: 8, sequences: 3, context: 200, positions: 320, pages: 11 };

/// The demo model's artifact and a simulated GPU, where it is the test's turn.
fn on_the_simulator(test: &str) -> Option<(Artifact, Gpu)> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tinystories-3m");
    simulated::with_model(test, |_| demo)
}

/// How far a sequence may be from itself alone: sums are in another order.
const EXACT: f64 = 1e-6;
/// How far two devices may be apart. Where a number lies between two codes, an order of sums decides; the other code is 1/16 off,
/// and numbers behind it fall to other codes, too. That stays below what quantization itself does, 0.04 to 0.2 for this model.
const APART: f64 = 0.1;

/// Tokens of the `n`-th sequence.
fn tokens(n: usize, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 37 + n * 101 + i * i * 5) % 1024) as u32).collect()
}

/// A sequence among others, its pages in no order, and alone.
struct Pair {
    tokens: Vec<u32>,
    past: usize,
    pages: Vec<u32>,
    alone: Session,
}

impl Pair {
    fn new((artifact, gpu): (&Artifact, &Gpu), n: usize, count: usize) -> Self {
        let limits = Limits { tokens: 200, context: 200, threads: 1 };
        let alone = Session::open_on(gpu, artifact, limits).unwrap();
        let pages = (0..count.div_ceil(PAGE)).map(|page| (ROOM.pages - 1 - 3 * page - n) as u32).collect();
        Pair { tokens: tokens(n, count), past: 0, pages, alone }
    }

    /// The next `count` tokens, of which the last `selected` are.
    fn piece(&self, count: usize, selected: usize) -> Piece<'_> {
        let tokens = &self.tokens[self.past..self.past + count];
        Piece { tokens, past: self.past, pages: &self.pages, selected: count - selected..count }
    }
}

/// Runs a step in which sequences have so many tokens each, none where 0, with so many selected.
fn check(pairs: &mut [Pair], gpu: &mut Executor, counts: &[usize], selected: usize) {
    let of = || pairs.iter().zip(counts).filter(|(_, count)| **count > 0);
    let pieces: Vec<Piece<'_>> = of().map(|(pair, count)| pair.piece(*count, selected.min(*count))).collect();
    gpu.run(&pieces).unwrap();
    let (mut logits, mut at) = (gpu.logits().unwrap(), 0);
    for (pair, count) in pairs.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        let next = pair.tokens[pair.past..pair.past + count].to_vec();
        let all = pair.alone.forward(&next, Select::All).unwrap();
        let rows = selected.min(*count) * pair.alone.vocab();
        let (wanted, found) = (&all[all.len() - rows..], &mut logits[at..at + rows]);
        let error = relative_error(wanted, found);
        assert!(error < EXACT, "{counts:?}, sequence at {}: {error:.1e}", pair.past);
        (pair.past, at) = (pair.past + count, at + rows);
    }
    assert_eq!(at, logits.len());
}

#[test]
fn sequences_of_unequal_lengths_share_steps() {
    let Some((artifact, gpu)) = on_the_simulator("sequences_of_unequal_lengths_share_steps") else { return };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let mut pairs: Vec<Pair> = (0..3).map(|n| Pair::new((&artifact, &gpu), n, [190, 120, 30][n])).collect();
    // A prompt, three at once, single tokens, a chunk beside single tokens, few tokens, none that are selected.
    for (counts, selected) in [
        ([37, 0, 0], 1),
        ([3, 70, 5], 2),
        ([1, 1, 1], 1),
        ([80, 1, 1], 1),
        ([2, 4, 3], 2),
        ([20, 0, 0], 0),
        ([1, 1, 1], 1),
        ([0, 9, 1], 2),
    ] {
        check(&mut pairs, &mut executor, &counts, selected);
    }
}

#[test]
fn every_launch_does_what_the_interpreter_does() {
    let Some((artifact, gpu)) = on_the_simulator("every_launch_does_what_the_interpreter_does") else {
        return;
    };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let mut pair = Pair::new((&artifact, &gpu), 2, 190);
    for count in [21, 1, 130, 3] {
        let compared = executor.compare(&pair.piece(count, count.min(8))).unwrap();
        for launch in &compared {
            assert!(launch.agrees(), "{count} tokens after {}: {launch:?}", pair.past);
        }
        // Of the plan's launches only those that are read in place have nothing to compare.
        assert!(compared.len() >= 45, "{}", compared.len());
        pair.past += count;
    }
}

#[test]
fn tokens_are_chosen_on_the_gpu_as_on_the_host() {
    let Some((artifact, gpu)) = on_the_simulator("tokens_are_chosen_on_the_gpu_as_on_the_host") else {
        return;
    };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let pair = Pair::new((&artifact, &gpu), 0, 12);
    let random = |step, top_p| Sampling::Random { temperature: 0.9, top_p, seed: 5 }.draw(step);
    let draws = [0, 1, 2, 3, 4, 5].map(|n| match n {
        0 => Sampling::Greedy.draw(0),
        n => random(n, if n % 2 == 0 { 0.8 } else { 1.0 }),
    });
    let found = executor.choose(&[pair.piece(12, 6)], &draws).unwrap();
    let logits = executor.logits().unwrap();
    let wanted: Vec<u32> = logits.chunks(1024).zip(&draws).map(|(row, draw)| pick(row, draw)).collect();
    assert_eq!(found, wanted);
    let refused = executor.choose(&[pair.piece(12, 6)], &draws[1..]).unwrap_err().to_string();
    assert!(refused.contains("5 draws for 6 rows"));
}

#[test]
fn steps_without_room_are_refused_with_the_reason_and_change_nothing() {
    let test = "steps_without_room_are_refused_with_the_reason_and_change_nothing";
    let Some((artifact, gpu)) = on_the_simulator(test) else { return };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let (long, ids) = (tokens(0, 170), tokens(1, 8));
    let piece = |tokens, past, pages, selected| Piece { tokens, past, pages, selected };
    for (pieces, reason) in [
        (vec![piece(&long, 0, &[0, 1, 2], 0..0)], "170 tokens: there is room for 160"),
        (vec![piece(&ids, 196, &[0, 1, 2, 3], 0..0)], "8 tokens after 196 do not fit a context of 200"),
        (vec![piece(&ids, 60, &[0], 0..0)], "1 pages for 68 positions, which take 2"),
        (vec![piece(&ids, 0, &[11], 0..0)], "page 11: there is room for 11"),
        (vec![piece(&ids, 0, &[1], 4..9)], "rows 4..9 of 8 tokens"),
        (vec![piece(&ids, 0, &[1], 0..8), piece(&ids, 0, &[2], 0..1)], "9 logits: there is room for 8"),
        (vec![piece(&ids[..1], 0, &[1], 0..1); 4], "4 sequences: there is room for 3"),
        (vec![piece(&[1024], 0, &[1], 0..1)], "token 1024 is outside the vocabulary of 1024"),
        (vec![piece(&ids, 150, &[0, 1, 2], 0..0); 3], "sequences of 478 positions: a step has room for 320"),
    ] {
        let found = executor.run(&pieces).unwrap_err().to_string();
        assert!(found.contains(reason), "{found}");
    }
    let mut pairs = [Pair::new((&artifact, &gpu), 0, 9)];
    check(&mut pairs, &mut executor, &[9], 1);
}

/// The largest logit, and how far it is above the next.
fn largest(logits: &[f32]) -> (u32, f32) {
    let first = pick(logits, &Sampling::Greedy.draw(0));
    let others = logits.iter().enumerate().filter(|(token, _)| *token != first as usize);
    (first, logits[first as usize] - others.map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max))
}

/// Where greedy texts part, logits are as near each other as those of two devices are.
#[test]
fn greedy_texts_are_the_cpus_or_part_where_two_tokens_are_as_likely() {
    let test = "greedy_texts_are_the_cpus_or_part_where_two_tokens_are_as_likely";
    let Some((artifact, gpu)) = on_the_simulator(test) else { return };
    let tokenizer = Tokens::load(&artifact.dir, Some(0)).unwrap();
    for prompt in
        ["Once upon a time, there was a dog.", "Once upon a time, there was a little girl named Lily. She"]
    {
        let mut next = tokenizer.encode(prompt).unwrap();
        let limits = Limits { tokens: 200, context: 200, threads: 1 };
        let mut cpu = Session::open(&artifact, limits).unwrap();
        let mut gpu = Session::open_on(&gpu, &artifact, limits).unwrap();
        for n in 0..64 {
            let [wanted, found] = [&mut cpu, &mut gpu].map(|on| on.forward(&next, Select::Last).unwrap());
            let ((token, gap), (other, _)) = (largest(&wanted), largest(&found));
            let apart = wanted.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let error = relative_error(&wanted, &found);
            assert!(error < APART && (token == other || gap <= 2.0 * apart), "{prompt}: token {n}");
            if token != other {
                break;
            }
            next = vec![token];
        }
    }
}
