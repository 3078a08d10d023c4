//! Steps that graphs start.

use std::fs;
use std::ops::Range;

use fireq_kernels::cuda::params::Draw;
use fireq_runtime::cuda::{CudaError, Executor, Graphed, PAGE, Piece, Room};
use fireq_runtime::{RuntimeError, Sampling};

use super::simulated::Calls;
use super::tiny::{VOCAB, on_the_simulator};

const ROOM: Room =
    Room { tokens: 1200, selected: 4, sequences: 4, context: 1024, positions: 2400, pages: 64 };

/// A text that is there for some steps.
struct Text {
    prompt: usize,
    steps: Range<usize>,
    sampling: Sampling,
    tokens: Vec<u32>,
    pages: Vec<u32>,
}

impl Text {
    fn new(n: usize, prompt: usize, steps: Range<usize>) -> Self {
        let tokens = (0..prompt).map(|i| ((i * 37 + n * 11 + i * i * 5) % VOCAB) as u32).collect();
        let sampling = match n {
            0 => Sampling::Greedy,
            _ => Sampling::Random { temperature: 0.8, top_p: 0.9, seed: n as u64 },
        };
        let pages = (0..16).map(|page| (4 * page + n) as u32).collect();
        Text { prompt, steps, sampling, tokens, pages }
    }

    /// What it adds to the step that chooses its next token: its prompt, or the last token.
    fn piece(&self) -> Piece<'_> {
        let past = if self.tokens.len() == self.prompt { 0 } else { self.tokens.len() - 1 };
        let tokens = &self.tokens[past..];
        let pages = &self.pages[..self.tokens.len().div_ceil(PAGE)];
        Piece { tokens, past, pages, selected: tokens.len() - 1..tokens.len() }
    }

    fn draw(&self) -> Draw {
        self.sampling.draw((self.tokens.len() - self.prompt) as u32)
    }
}

/// Texts of unequal lengths come and go, and keys are split among more and more parts. The same tokens and logits, bit by bit,
/// whether launches or graphs start steps.
#[test]
fn graphs_give_what_launches_give_in_every_step() {
    let Some((artifact, gpu)) = on_the_simulator("graphs::graphs_give_what_launches_give_in_every_step")
    else {
        return;
    };
    let mut graphs = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let mut launches = Executor::new(&gpu, &artifact, ROOM).unwrap();
    launches.keep_graphs(0);
    let mut texts =
        [(650, 0..110), (40, 3..60), (5, 20..90), (250, 45..110)].map(|(prompt, steps)| (prompt, steps));
    let mut texts: Vec<Text> = texts
        .iter_mut()
        .enumerate()
        .map(|(n, (prompt, steps))| Text::new(n, *prompt, steps.clone()))
        .collect();
    let mut decoded = 0;
    for step in 0..110 {
        let here: Vec<usize> = (0..texts.len()).filter(|n| texts[*n].steps.contains(&step)).collect();
        // Those that come read their prompts in a step of their own.
        let new = here.iter().copied().filter(|n| texts[*n].steps.start == step).collect::<Vec<_>>();
        let old = here.iter().copied().filter(|n| texts[*n].steps.start < step).collect::<Vec<_>>();
        for (members, prompts) in [(new, true), (old, false)] {
            if members.is_empty() {
                continue;
            }
            let pieces: Vec<Piece<'_>> = members.iter().map(|n| texts[*n].piece()).collect();
            let draws: Vec<Draw> = members.iter().map(|n| texts[*n].draw()).collect();
            let [found, wanted] = [&mut graphs, &mut launches].map(|executor| {
                let tokens = executor.choose(&pieces, &draws).unwrap();
                let logits: Vec<u32> = executor.logits().unwrap().into_iter().map(f32::to_bits).collect();
                (tokens, logits)
            });
            assert_eq!(found, wanted, "step {step}, {} texts", members.len());
            decoded += usize::from(!prompts);
            for (n, token) in members.iter().zip(found.0) {
                texts[*n].tokens.push(token);
            }
        }
    }
    assert_eq!(launches.graphed(), Graphed::default());
    let Graphed { captured, replayed, kept } = graphs.graphed();
    eprintln!("{decoded} steps: {captured} captured, {replayed} replayed");
    assert_eq!((decoded, captured), (109, kept));
    // Texts come or go five times after the first, and two or three splits of keys come while one of them is long.
    assert!(replayed >= 90 && (6..=12).contains(&captured), "{captured} captured, {replayed} replayed");
}

/// Functions of the driver in a step.
const OF_A_STEP: [&str; 8] = [
    "cuMemcpyHtoDAsync_v2",
    "cuGraphLaunch",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamSynchronize",
    "cuLaunchKernelEx",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemAlloc_v2",
];

#[test]
fn a_step_is_one_copy_one_graph_and_one_copy_back() {
    let Some((artifact, gpu)) = on_the_simulator("graphs::a_step_is_one_copy_one_graph_and_one_copy_back")
    else {
        return;
    };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let mut texts: Vec<Text> = (0..3).map(|n| Text::new(n, 5 + 9 * n, 0..1)).collect();
    let calls = Calls::new();
    let mut step = || {
        let pieces: Vec<Piece<'_>> = texts.iter().map(Text::piece).collect();
        let draws: Vec<Draw> = texts.iter().map(Text::draw).collect();
        let mut tokens = vec![];
        let counts = calls.during(OF_A_STEP, || tokens = executor.choose(&pieces, &draws).unwrap());
        texts.iter_mut().zip(tokens).for_each(|(text, token)| text.tokens.push(token));
        counts
    };
    let prompts = step();
    assert_eq!(prompts[..4], [1, 0, 1, 1], "prompts are no graph");
    let launches = step()[4];
    assert!(launches > 10, "{launches}");
    assert_eq!(step(), [1, 1, 1, 1, launches, 0, 0, 0], "the second is captured");
    for _ in 0..3 {
        assert_eq!(step(), [1, 1, 1, 1, 0, 0, 0, 0]);
    }
}

#[test]
fn graphs_of_shapes_that_came_long_ago_are_given_up() {
    let Some((artifact, gpu)) = on_the_simulator("graphs::graphs_of_shapes_that_came_long_ago_are_given_up")
    else {
        return;
    };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    executor.keep_graphs(2);
    let (calls, texts) = (Calls::new(), [0, 1, 2].map(|n| Text::new(n, 1, 0..1)));
    let mut counts = vec![];
    let [destroyed, templates] = calls.during(["cuGraphExecDestroy", "cuGraphDestroy"], || {
        for sequences in [1, 1, 1, 2, 2, 1, 3, 3, 2, 2, 3] {
            let pieces: Vec<Piece<'_>> = texts[..sequences].iter().map(Text::piece).collect();
            executor.run(&pieces).unwrap();
            let Graphed { captured, replayed, kept } = executor.graphed();
            counts.push([captured, replayed, kept]);
        }
    });
    let wanted = [
        [0, 0, 0],
        [1, 1, 1],
        [1, 2, 1],
        [1, 2, 1],
        [2, 3, 2],
        // One is the last that came when three come, so that two are forgotten.
        [2, 4, 2],
        [2, 4, 1],
        [3, 5, 2],
        [3, 5, 1],
        [4, 6, 2],
        [4, 7, 2],
    ];
    assert_eq!(counts, wanted);
    assert_eq!((destroyed, templates), (2, 4));
    executor.keep_graphs(0);
    executor.run(&[texts[0].piece()]).unwrap();
    assert_eq!(executor.graphed(), Graphed { captured: 4, replayed: 7, kept: 0 });
}

#[test]
fn a_capture_that_fails_is_an_error_and_ends() {
    let Some((artifact, gpu)) = on_the_simulator("graphs::a_capture_that_fails_is_an_error_and_ends") else {
        return;
    };
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let memory = gpu.allocate(16).unwrap();
    let calls: [&dyn Fn() -> Result<(), CudaError>; 3] =
        [&|| gpu.synchronize(), &|| gpu.allocate(16).map(drop), &|| memory.read().map(drop)];
    for (n, call) in calls.into_iter().enumerate() {
        let said = gpu.capture(call).unwrap_err();
        assert!(said.to_string().contains("not permitted when stream is capturing"), "{n}: {said}");
        assert_eq!(said.hint(), Some("try --no-graphs"));
        // What a caller overlooks, the end of the capture does not.
        let said = gpu.capture(|| call().or(Ok::<(), CudaError>(()))).unwrap_err();
        assert!(said.to_string().contains("previous error during capture"), "{n}: {said}");
    }
    let refused = gpu.capture(|| Err(RuntimeError::Step("no".into()))).unwrap_err();
    assert_eq!(refused.to_string(), "no");
    // The stream is as it was.
    let text = Text::new(0, 1, 0..1);
    for _ in 0..3 {
        executor.run(&[text.piece()]).unwrap();
    }
    assert_eq!(executor.graphed().replayed, 2);
    assert_eq!(executor.logits().unwrap().len(), VOCAB);
}

#[test]
fn launches_that_may_start_early_say_so_in_graphs_too() {
    let Some((artifact, gpu)) =
        on_the_simulator("graphs::launches_that_may_start_early_say_so_in_graphs_too")
    else {
        return;
    };
    let path = artifact.dir.join("kernels/program.json");
    let program = fs::read_to_string(&path).unwrap();
    let plain = program.replace("\"overlaps\":true,", "");
    let (first, others) = plain.split_at(plain.find("\"arguments\"").unwrap() + 1);
    let others = others.replacen("\"arguments\"", "\"overlaps\":true,\"arguments\"", 2);
    fs::write(&path, format!("{first}{others}")).unwrap();
    let mut executor = Executor::new(&gpu, &artifact, ROOM).unwrap();
    let (calls, text) = (Calls::new(), Text::new(0, 1, 0..1));
    let overlaps = "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION";
    let mut step =
        || calls.during([overlaps, "cuFuncSetAttribute"], || executor.run(&[text.piece()]).unwrap());
    // One by one, captured, and as it was captured; no launch allows its kernel anything.
    assert_eq!([step(), step(), step()], [[2, 0], [2, 0], [0, 0]]);
}
