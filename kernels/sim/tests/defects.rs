//! Kernels broken on purpose: each defect has to be caught, as what it is and where it is.

mod fixture;

use fireq_sim::{Fault, FaultKind, Launch, Memory, Module, Options, Params, Swizzle, TensorMap, run};
use fixture::{faults, launch, module, ptx, with, without};

/// Line of the CUDA source that contains the text.
fn line_of(file: &str, text: &str) -> u32 {
    let path = format!("{}/tests/ptx/{file}", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(path).unwrap();
    source.lines().position(|l| l.contains(text)).unwrap() as u32 + 1
}

/// Every fault is of the kind, and one is at a source line with one of the texts.
fn all(found: &[Fault], kind: impl Fn(&FaultKind) -> bool, file: &str, texts: &[&str]) {
    let lines: Vec<u32> = texts.iter().map(|t| line_of(file, t)).collect();
    for fault in found {
        assert!(kind(&fault.kind), "{fault}");
        let source = fault.position.as_ref().and_then(|p| p.source.as_ref());
        assert!(source.is_some_and(|(f, l)| f == file && lines.contains(l)), "{fault} is not at {lines:?}");
    }
}

fn norm(memory: &mut Memory) -> (Launch, ()) {
    let n = 64usize;
    let x = memory.alloc_with("x", &vec![0x3f; n * 2]);
    let weight = memory.alloc_with("weight", &vec![0x3f; n * 4]);
    let (q, scale) = (memory.alloc("q", n), memory.alloc("scale", 4));
    let params = Params::new().u64(x).u64(weight).u64(q).u64(scale).u32(n as u32).build();
    (launch("rms_norm", [1, 1, 1], [128, 1, 1], params), ())
}

#[test]
fn a_reduction_without_barrier_reads_what_is_not_there_yet_or_races() {
    let found = faults(&module(&without(&ptx("norm"), "bar.sync")), norm);
    let kind = |k: &FaultKind| matches!(k, FaultKind::Uninitialised { .. } | FaultKind::Race { .. });
    all(&found, kind, "norm.cu", &["x = part[0]", "x = f(x, part[i])"]);
    assert_eq!(found.len(), fixture::options().len());
}

#[test]
fn a_tail_that_is_off_by_one_leaves_the_allocation() {
    let found = faults(&module(&ptx("norm.off_by_one")), norm);
    all(&found, |k| matches!(k, FaultKind::OutOfBounds { .. }), "norm.cu", &["uint4 v = row[i]"]);
    assert_eq!(found.len(), fixture::options().len());
    assert!(found[0].to_string().contains("byte 128 of `x`, which has 128"), "{}", found[0]);
    assert_eq!(found[0].position.as_ref().unwrap().lane, Some(8));
}

#[test]
fn a_transposition_without_barrier_is_caught() {
    let setup = |memory: &mut Memory| {
        let input = memory.alloc_with("in", &[1; 4096]);
        let out = memory.alloc("out", 4096);
        let params = Params::new().u64(input).u64(out).u32(32).u32(32).build();
        (launch("transpose", [1, 1, 1], [32, 8, 1], params), ())
    };
    let found = faults(&module(&without(&ptx("transpose"), "bar.sync")), setup);
    let kind = |k: &FaultKind| matches!(k, FaultKind::Uninitialised { .. } | FaultKind::Race { .. });
    all(&found, kind, "transpose.cu", &["= tile[x][y]", "tile[y][x] ="]);
    assert_eq!(found.len(), fixture::options().len());
}

fn pipeline(memory: &mut Memory) -> (Launch, ()) {
    let input = memory.alloc_with("in", &[0x3f; 8 * 512]);
    let out = memory.alloc("out", 512);
    let params = Params::new().u64(input).u64(out).u32(8).build();
    (launch("pipeline", [1, 1, 1], [160, 1, 1], params), ())
}

#[test]
fn the_wrong_parity_reads_a_stage_before_it_is_filled() {
    let found = faults(&module(&ptx("pipeline.wrong_parity")), pipeline);
    let kind = |k: &FaultKind| {
        matches!(k, FaultKind::Uninitialised { .. } | FaultKind::InFlight { .. } | FaultKind::Race { .. })
    };
    all(&found, kind, "pipeline.cu", &["sum += ring[s][i]"]);
    assert_eq!(found.len(), fixture::options().len());
}

#[test]
fn a_producer_that_does_not_wait_for_empty_stages_overwrites_them() {
    let found = faults(&module(&ptx("pipeline.no_empty_wait")), pipeline);
    for fault in &found {
        let kind = &fault.kind;
        assert!(
            matches!(kind, FaultKind::Race { .. } | FaultKind::InFlight { .. } | FaultKind::Mbarrier { .. }),
            "{fault}"
        );
    }
    assert_eq!(found.len(), fixture::options().len());
}

#[test]
fn a_consumer_that_never_arrives_is_a_deadlock_with_every_position() {
    let found = faults(&module(&without(&ptx("pipeline"), "mbarrier.arrive.shared::cta")), pipeline);
    assert_eq!(found.len(), fixture::options().len());
    for fault in found {
        let FaultKind::Deadlock(waiting) = &fault.kind else { panic!("{fault}") };
        // The producing lane, the rest of its warp waits where the paths meet, and four consuming warps.
        let warps: std::collections::BTreeSet<u32> = waiting.iter().map(|w| w.position.warp).collect();
        assert_eq!(warps, (0..5).collect());
        assert!(waiting.iter().all(|w| w.reason.contains("mbarrier")), "{fault}");
    }
}

/// However many warps poll: the looks of all are counted over their turns.
#[test]
fn many_warps_that_poll_for_what_never_comes_are_a_deadlock() {
    let text = "
        .version 8.0
        .target sm_90a
        .address_size 64
        .visible .entry poll() {
            .shared .align 8 .b64 barrier;
            .reg .b32 %r<3>;
            .reg .pred %p<3>;
            mov.u32 %r1, barrier;
            mov.u32 %r2, %tid.x;
            setp.ne.u32 %p1, %r2, 0;
            @%p1 bra READY;
            mbarrier.init.shared::cta.b64 [%r1], 1;
            READY: bar.sync 0;
            AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0;
            @!%p2 bra AGAIN;
            ret;
        }";
    let module = Module::parse(text).unwrap();
    for options in fixture::options() {
        let options = Options { budget: 1 << 20, ..options };
        let launch = launch("poll", [1; 3], [1024, 1, 1], vec![]);
        let fault = run(&module, &launch, &mut Memory::new(), &options).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Deadlock(_)), "{fault}");
    }
}

fn gemm(memory: &mut Memory) -> (Launch, ()) {
    let codes = vec![0x38; 64 * 512];
    let map = |memory: &mut Memory, name: &str| TensorMap {
        address: memory.alloc_with(name, &codes),
        rank: 2,
        element_bytes: 1,
        dims: [512, 64, 0, 0, 0],
        strides: [512, 0, 0, 0],
        block: [128, 64, 0, 0, 0],
        swizzle: Swizzle::B128,
    };
    let (a, b) = (map(memory, "a").encode().unwrap(), map(memory, "b").encode().unwrap());
    let out = memory.alloc("out", 64 * 64 * 4);
    let params = Params::new().bytes(64, &a).bytes(64, &b).u64(out).u32(64).u32(64).u32(512).build();
    (Launch { dynamic_shared: 4 * 64 * 128, ..launch("gemm", [1, 1, 1], [160, 1, 1], params) }, ())
}

#[test]
fn accumulators_in_flight_are_not_read() {
    let found = faults(&module(&without(&ptx("gemm"), "wgmma.wait_group")), gemm);
    assert_eq!(found.len(), fixture::options().len());
    // The accumulators leave the loop through moves, so the store is where they are read; or the stage is refilled.
    for fault in &found {
        let expected = matches!(
            fault.kind,
            FaultKind::AccumulatorInFlight("read") | FaultKind::InFlight { .. } | FaultKind::Race { .. }
        );
        assert!(expected, "{fault}");
    }
}

#[test]
fn wgmma_needs_its_fence() {
    let found = faults(&module(&without(&ptx("gemm"), "wgmma.fence")), gemm);
    all(&found, |k| matches!(k, FaultKind::MissingWgmmaFence), "gemm.cu", &[": \"l\"(a), \"l\"(b));"]);
    assert_eq!(found.len(), fixture::options().len());
    let caller = found[0].position.as_ref().unwrap().inlined_at.clone();
    assert_eq!(caller, Some(("gemm.cu".into(), line_of("gemm.cu", "multiply(d, descriptor("))));
}

#[test]
fn wgmma_does_not_read_a_stage_in_flight() {
    // The wait ends at once: its result is replaced by true.
    let found = faults(&module(&with(&ptx("gemm"), "@done bra DONE;", "bra DONE;")), gemm);
    assert_eq!(found.len(), fixture::options().len());
    for fault in &found {
        let kind = &fault.kind;
        let expected = matches!(
            kind,
            FaultKind::Uninitialised { .. }
                | FaultKind::InFlight { .. }
                | FaultKind::Race { .. }
                | FaultKind::Mbarrier { .. }
        );
        assert!(expected, "{fault}");
    }
}

/// The last line of the statement, which is the one that the compiler names.
const STORE: &str = "\"r\"(shared(tile))";

fn store(memory: &mut Memory) -> (Launch, ()) {
    let input = memory.alloc_with("in", &[0; 4096]);
    let out = memory.alloc("out", 4096);
    let map = TensorMap {
        address: out,
        rank: 2,
        element_bytes: 4,
        dims: [64, 16, 0, 0, 0],
        strides: [256, 0, 0, 0],
        block: [64, 16, 0, 0, 0],
        swizzle: Swizzle::None,
    };
    let params = Params::new().bytes(64, &map.encode().unwrap()).u64(input).build();
    (launch("store", [1, 1, 1], [128, 1, 1], params), ())
}

#[test]
fn a_tensor_store_needs_a_proxy_fence() {
    let found = faults(&module(&without(&ptx("store"), "fence.proxy.async")), store);
    all(&found, |k| matches!(k, FaultKind::MissingProxyFence { .. }), "store.cu", &[STORE]);
    assert_eq!(found.len(), fixture::options().len());
}

#[test]
fn a_cta_does_not_end_before_its_stores_have_read() {
    let found = faults(&module(&without(&ptx("store"), "cp.async.bulk.wait_group")), store);
    assert!(found.iter().all(|f| matches!(f.kind, FaultKind::UnfinishedTransfer("a read"))), "{found:?}");
    // Where operations are early there is nothing left to wait for.
    assert_eq!(found.len(), fixture::options().len() / 2);
}

#[test]
fn memory_is_not_reused_while_a_store_reads_it() {
    let found = faults(&module(&ptx("store.reuse")), store);
    assert_eq!(found.len(), fixture::options().len());
    let kind = |k: &FaultKind| matches!(k, FaultKind::Race { .. } | FaultKind::InFlight { .. });
    all(&found, kind, "store.cu", &["tile[0][threadIdx.x % 64] = 0.0f", STORE]);
}

fn cluster(memory: &mut Memory) -> (Launch, ()) {
    let input = memory.alloc_with("in", &[1; 256]);
    let out = memory.alloc("out", 512);
    let params = Params::new().u64(input).u64(out).build();
    (launch("cluster", [2, 1, 1], [64, 1, 1], params), ())
}

/// The text without the n-th pair of a cluster barrier's arrival and wait.
fn without_cluster_barrier(text: &str, which: usize) -> String {
    let (mut arrivals, mut waits) = (0, 0);
    let keep = |line: &&str| {
        let (is_arrival, is_wait) =
            (line.contains("barrier.cluster.arrive"), line.contains("barrier.cluster.wait"));
        arrivals += usize::from(is_arrival);
        waits += usize::from(is_wait);
        !(is_arrival && arrivals == which || is_wait && waits == which)
    };
    text.lines().filter(keep).map(|l| format!("{l}\n")).collect()
}

#[test]
fn ctas_of_a_cluster_synchronise_before_they_read_each_other() {
    let found = faults(&module(&without_cluster_barrier(&ptx("cluster"), 2)), cluster);
    for fault in &found {
        let expected = matches!(
            fault.kind,
            FaultKind::Uninitialised { .. } | FaultKind::Race { .. } | FaultKind::Undefined(_)
        );
        assert!(expected, "{fault}");
    }
    assert_eq!(found.len(), fixture::options().len());
}

#[test]
fn a_cta_does_not_end_while_another_reads_its_memory() {
    let found = faults(&module(&without_cluster_barrier(&ptx("cluster"), 3)), cluster);
    assert!(
        found.iter().all(|f| matches!(&f.kind, FaultKind::Undefined(m) if m.contains("has ended"))),
        "{found:?}"
    );
}

#[test]
fn barrier_objects_are_shown_to_the_asynchronous_proxy() {
    let found = faults(&module(&without(&ptx("pipeline"), "fence.mbarrier_init")), pipeline);
    let shown = |k: &FaultKind| matches!(k, FaultKind::Mbarrier { reason, .. } if reason.contains("visible"));
    assert!(found.iter().all(|f| shown(&f.kind)), "{}", found[0]);
    assert_eq!(found.len(), fixture::options().len());
}
