//! Many texts at once.

use fireq_runtime::cuda::{Batch, End, Event, Executor, Gpu, Request, Room};
use fireq_runtime::{Artifact, Limits, Sampling, Select, Session, pick};

use super::{ROOM, on_the_simulator, tokens};

/// Greedy tokens behind a prompt.
fn greedy((artifact, gpu): (&Artifact, &Gpu), prompt: &[u32], count: usize) -> Vec<u32> {
    let limits = Limits { tokens: 200, context: 200, threads: 1 };
    let mut alone = Session::open_on(gpu, artifact, limits).unwrap();
    let (mut next, mut found) = (prompt.to_vec(), vec![]);
    for _ in 0..count {
        let token = pick(&alone.forward(&next, Select::Last).unwrap(), &Sampling::Greedy.draw(0));
        next = vec![token];
        found.push(token);
    }
    found
}

/// Two texts take two pages each from some token on, and there are three: the later one gives its page back, and reads
/// everything again when the other is done.
#[test]
fn texts_share_pages_that_do_not_suffice() {
    let Some((artifact, gpu)) = on_the_simulator("batch::texts_share_pages_that_do_not_suffice") else {
        return;
    };
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
        assert_eq!(found[id], greedy((&artifact, &gpu), prompt, count), "text {id}");
    }
    assert_eq!(ended, [(2, End::Length), (0, End::Length), (1, End::Length)]);
    // Three to read 124 tokens and five to continue the first text; two to read the second again and the rest of it.
    assert!((10..=14).contains(&steps), "{steps} steps");
}

#[test]
fn texts_that_never_have_room_are_refused_and_texts_end_where_they_should() {
    let test = "batch::texts_that_never_have_room_are_refused_and_texts_end_where_they_should";
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
    let narrow = Room { positions: 48, ..room };
    let mut narrow = Batch::new(Executor::new(&gpu, &artifact, narrow).unwrap());
    let said = narrow.add(0, request(tokens(0, 40), 9, &[])).unwrap_err().to_string();
    assert!(said.contains("48 in a step"), "{said}");
    let third = greedy((&artifact, &gpu), &tokens(1, 5), 3)[2];
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
