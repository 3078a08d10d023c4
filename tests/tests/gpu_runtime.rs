//! The runtime on a driver whose GPU is the simulator: every kernel of the demo model's plan, in steps of one sequence and of
//! several, against the same artifact's CPU code.

#![cfg(feature = "llvm")]

use std::path::Path;
use std::process::Command;

use fireq::build::{BuildOptions, Plans, Targets, build};
use fireq::import::import;
use fireq_codegen::cuda::cache::Cache;
use fireq_codegen::cuda::nvrtc::version;
use fireq_codegen::llvm::Cpu;
use fireq_kernels::cuda::tuning::Tuning;
use fireq_runtime::cuda::{Batch, End, Event, Executor, Gpu, PAGE, Piece, Request, Room};
use fireq_runtime::{Artifact, Limits, Sampling, Select, Session, pick};
use fireq_tests::relative_error;

/// Where the artifact is, for a test that runs on the simulated driver.
const ARTIFACT: &str = "FIREQ_TEST_ARTIFACT";
const ROOM: Room = Room { tokens: 160, selected: 8, sequences: 3, context: 200, positions: 320, pages: 11 };

/// The demo model's artifact and a simulated GPU. The driver is found by the name that programs look for when they start,
/// so that the test is started again as a program of its own, in which alone this gives something.
fn on_the_simulator(test: &str) -> Option<(Artifact, Gpu)> {
    if let Ok(dir) = std::env::var(ARTIFACT) {
        return Some((Artifact::open(Path::new(&dir)).unwrap(), Gpu::open(0).unwrap()));
    }
    if version().is_err() {
        eprintln!("skipped: the runtime on a simulated GPU: no NVRTC (cargo xtask setup)");
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    let artifact = temp.path().join("m.fireq");
    compile(&artifact);
    let executable = std::env::current_exe().unwrap();
    let library = executable.with_file_name("libsimcuda.so");
    std::os::unix::fs::symlink(library, temp.path().join("libcuda.so")).unwrap();
    let output = Command::new(executable)
        .args([test, "--exact", "--nocapture"])
        .env(ARTIFACT, &artifact)
        .env("LD_LIBRARY_PATH", temp.path())
        .env("FIREQ_SIM_PTX", artifact.join("kernels"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    None
}

fn compile(out: &Path) {
    let mut model = import(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tinystories-3m")).unwrap();
    fireq_passes::pipeline("full").unwrap().run(&mut model.graph).unwrap();
    let plans = Plans::of(&model.graph, Targets { cpu: true, cuda: true }).unwrap();
    let options = BuildOptions {
        cpu: Cpu::Host,
        threads: 2,
        emit_llvm: false,
        cache: Cache::of_user(),
        tuning: Tuning::default(),
    };
    build(&model, &plans, "full", None, &options, out, &|_, _| ()).unwrap();
}

/// Where no probability of attention lies between two codes, only sums differ. Where one does, the first number that differs
/// is off by less than what attention may be, and then codes of activations may be neighbours, and tokens behind read its keys.
const EXACT: f64 = 1e-6;
const CASCADE: f64 = 5e-2;

/// Tokens of the `n`-th sequence.
fn tokens(n: usize, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 37 + n * 101 + i * i * 5) % 1024) as u32).collect()
}

/// A sequence on the GPU, its pages in no order, and on the CPU.
struct Pair {
    tokens: Vec<u32>,
    past: usize,
    pages: Vec<u32>,
    cpu: Session,
}

impl Pair {
    fn new(artifact: &Artifact, n: usize, count: usize) -> Self {
        let cpu = Session::open(artifact, Limits { tokens: 200, context: 200, threads: 1 }).unwrap();
        let pages = (0..count.div_ceil(PAGE)).map(|page| (ROOM.pages - 1 - 3 * page - n) as u32).collect();
        Pair { tokens: tokens(n, count), past: 0, pages, cpu }
    }

    /// The next `count` tokens, of which the last `selected` are.
    fn piece(&self, count: usize, selected: usize) -> Piece<'_> {
        let tokens = &self.tokens[self.past..self.past + count];
        Piece { tokens, past: self.past, pages: &self.pages, selected: count - selected..count }
    }
}

/// Runs a step in which sequences have so many tokens each, none where 0, with so many selected; says how many are exact.
fn check(pairs: &mut [Pair], gpu: &mut Executor, counts: &[usize], selected: usize) -> usize {
    let of = || pairs.iter().zip(counts).filter(|(_, count)| **count > 0);
    let pieces: Vec<Piece<'_>> = of().map(|(pair, count)| pair.piece(*count, selected.min(*count))).collect();
    gpu.run(&pieces).unwrap();
    let (mut logits, mut at, mut exact) = (gpu.logits().unwrap(), 0, 0);
    for (pair, count) in pairs.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        let next = pair.tokens[pair.past..pair.past + count].to_vec();
        let all = pair.cpu.forward(&next, Select::All).unwrap();
        let rows = selected.min(*count) * pair.cpu.vocab();
        let (wanted, found) = (&all[all.len() - rows..], &mut logits[at..at + rows]);
        let error = relative_error(wanted, found);
        assert!(error < CASCADE, "{counts:?}, sequence at {}: {error:.1e}", pair.past);
        exact += usize::from(error < EXACT);
        (pair.past, at) = (pair.past + count, at + rows);
    }
    assert_eq!(at, logits.len());
    exact
}

#[test]
fn sequences_of_unequal_lengths_share_steps() {
    let Some((artifact, gpu)) = on_the_simulator("sequences_of_unequal_lengths_share_steps") else { return };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let mut pairs: Vec<Pair> = (0..3).map(|n| Pair::new(&artifact, n, [190, 120, 30][n])).collect();
    // A prompt, three at once, single tokens, a chunk beside single tokens, few tokens, none that are selected.
    let mut exact = 0;
    for (counts, selected) in [
        ([37, 0, 0], 1),
        ([3, 70, 5], 2),
        ([1, 1, 1], 1),
        ([100, 1, 1], 1),
        ([2, 4, 3], 2),
        ([20, 0, 0], 0),
        ([1, 1, 1], 1),
        ([0, 9, 1], 2),
    ] {
        exact += check(&mut pairs, &mut executor, &counts, selected);
    }
    assert!(exact >= 15, "{exact} of 19");
}

#[test]
fn every_launch_does_what_the_interpreter_does() {
    let Some((artifact, gpu)) = on_the_simulator("every_launch_does_what_the_interpreter_does") else {
        return;
    };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let mut pair = Pair::new(&artifact, 2, 190);
    for count in [37, 1, 130, 3] {
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
    let pair = Pair::new(&artifact, 0, 12);
    executor.run(&[pair.piece(12, 6)]).unwrap();
    let random = |step, top_p| Sampling::Random { temperature: 0.9, top_p, seed: 5 }.draw(step);
    let draws = [0, 1, 2, 3, 4, 5].map(|n| match n {
        0 => Sampling::Greedy.draw(0),
        n => random(n, if n % 2 == 0 { 0.8 } else { 1.0 }),
    });
    let logits = executor.logits().unwrap();
    let wanted: Vec<u32> = logits.chunks(1024).zip(&draws).map(|(row, draw)| pick(row, draw)).collect();
    assert_eq!(executor.sample(&draws).unwrap(), wanted);
    assert!(executor.sample(&draws[1..]).unwrap_err().to_string().contains("5 draws for 6 rows"));
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
    let mut pairs = [Pair::new(&artifact, 0, 9)];
    assert_eq!(check(&mut pairs, &mut executor, &[9], 1), 1);
}

/// Greedy tokens of the CPU behind a prompt.
fn greedy(artifact: &Artifact, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut cpu = Session::open(artifact, Limits { tokens: 200, context: 200, threads: 1 }).unwrap();
    let (mut next, mut found) = (prompt.to_vec(), vec![]);
    for _ in 0..count {
        let token = pick(&cpu.forward(&next, Select::Last).unwrap(), &Sampling::Greedy.draw(0));
        next = vec![token];
        found.push(token);
    }
    found
}

/// Two texts take two pages each from some token on, and there are three: the later one gives its page back, and reads
/// everything again when the other is done.
#[test]
fn texts_share_pages_that_do_not_suffice() {
    let Some((artifact, gpu)) = on_the_simulator("texts_share_pages_that_do_not_suffice") else { return };
    let room = Room { tokens: 50, pages: 3, ..ROOM };
    let mut batch = Batch::new(Executor::new(&gpu, &artifact, room).unwrap());
    // Their prompts are read in chunks of at most 50 tokens in all.
    let prompts = [tokens(0, 61), tokens(1, 60), tokens(2, 3)];
    let counts = [6, 7, 4];
    for (id, (prompt, count)) in prompts.iter().zip(counts).enumerate() {
        let request =
            Request { prompt: prompt.clone(), tokens: count, eos: vec![], sampling: Sampling::Greedy };
        batch.add(id, request).unwrap();
    }
    let (mut found, mut ended, mut steps) = (vec![vec![]; 3], vec![], 0);
    while !batch.is_done() {
        steps += 1;
        for (id, event) in batch.step().unwrap() {
            match event {
                Event::Token(token) => found[id].push(token),
                Event::End(end) => ended.push((id, end)),
            }
        }
    }
    for (id, (prompt, count)) in prompts.iter().zip(counts).enumerate() {
        assert_eq!(found[id], greedy(&artifact, prompt, count), "text {id}");
    }
    assert_eq!(ended, [(2, End::Length), (0, End::Length), (1, End::Length)]);
    // Three to read 124 tokens and five to continue the first text; two to read the second again and the rest of it.
    assert!((10..=14).contains(&steps), "{steps} steps");
}

#[test]
fn texts_that_never_have_room_are_refused_and_texts_end_where_they_should() {
    let test = "texts_that_never_have_room_are_refused_and_texts_end_where_they_should";
    let Some((artifact, gpu)) = on_the_simulator(test) else { return };
    let room = Room { context: 70, pages: 2, ..ROOM };
    let mut batch = Batch::new(Executor::new(&gpu, &artifact, room).unwrap());
    let request = |prompt: Vec<u32>, tokens, eos: &[u32]| Request {
        prompt,
        tokens,
        eos: eos.to_vec(),
        sampling: Sampling::Greedy,
    };
    assert!(batch.add(0, request(vec![], 1, &[])).is_err());
    assert!(batch.add(0, request(tokens(0, 71), 1, &[])).unwrap_err().to_string().contains("71 tokens"));
    assert!(batch.add(0, request(vec![1024], 1, &[])).unwrap_err().to_string().contains("vocabulary"));
    let third = greedy(&artifact, &tokens(1, 5), 3)[2];
    batch.add(4, request(tokens(1, 5), 0, &[])).unwrap();
    batch.add(5, request(tokens(0, 69), 100, &[])).unwrap();
    batch.add(6, request(tokens(1, 5), 100, &[third])).unwrap();
    let mut ends = vec![];
    while !batch.is_done() {
        let events = batch.step().unwrap();
        ends.extend(events.into_iter().filter(|(_, event)| matches!(event, Event::End(_))));
    }
    assert_eq!(
        ends,
        [(4, End::Length), (5, End::Context), (6, End::Eos)].map(|(id, end)| (id, Event::End(end)))
    );
}
