//! `cp.async`, barrier objects, named barriers: results, and what each refuses.

#[path = "fixture/snippet.rs"]
mod snippet;

use fireq_sim::{Fault, FaultKind, Timing};
use snippet::{attempt, lanes, one};

const NONE: [&[u64]; 3] = [&[], &[], &[]];

fn fault(body: &str) -> Fault {
    let early = attempt(body, NONE, Timing::Early).expect_err("early");
    let late = attempt(body, NONE, Timing::Late).expect_err("late");
    assert_eq!(std::mem::discriminant(&early.kind), std::mem::discriminant(&late.kind), "{early}, {late}");
    late
}

fn misuse(body: &str) -> String {
    let fault = fault(body);
    let FaultKind::Mbarrier { reason, .. } = fault.kind else { panic!("{fault}") };
    reason
}

/// 16 bytes per lane from the first input (8 bytes each) to shared memory, zero beyond `%r2` bytes.
fn copy(wait: &str) -> String {
    format!(
        "ld.param.u64 %rd1, [p0]; and.b32 %r1, %lane, 15; mul.wide.u32 %rd2, %r1, 16; add.s64 %rd1, %rd1, %rd2;\n\
         mov.u32 %r3, shared; shl.b32 %r4, %lane, 4; add.u32 %r3, %r3, %r4;\n\
         setp.lt.u32 %p, %lane, 16; selp.u32 %r2, 16, 4, %p;\n\
         cp.async.cg.shared.global [%r3], [%rd1], 16, %r2;\ncp.async.commit_group;\n{wait}\n\
         ld.shared.v2.u64 {{%rd3, %rd4}}, [%r3]; add.s64 %ld, %rd3, %rd4;"
    )
}

#[test]
fn cp_async_copies_and_fills_with_zeros() {
    let values: Vec<u64> = (0..32).map(|i| 0x1_0000_0001 * (i + 1)).collect();
    let got = lanes(&copy("cp.async.wait_group 0;"), [&values, &[], &[]]);
    assert_eq!(got[..2], [0x3_0000_0003, 0x7_0000_0007]);
    assert_eq!(got[16..18], [1, 3]);
    assert_eq!(lanes(&copy("cp.async.wait_all;"), [&values, &[], &[]]), got);
}

#[test]
fn cp_async_needs_its_wait() {
    let early = attempt(&copy(""), NONE, Timing::Early).unwrap_err();
    assert!(matches!(early.kind, FaultKind::Race { .. }), "{early}");
    let late = attempt(&copy("cp.async.wait_group 1;"), NONE, Timing::Late).unwrap_err();
    assert!(matches!(late.kind, FaultKind::InFlight { .. }), "{late}");
}

const INIT: &str = "mov.u32 %r1, shared; setp.eq.u32 %p, %lane, 0;\n";

#[test]
fn phases_end_when_arrivals_and_bytes_are_complete() {
    let poll = |parity: u32, to: &str| {
        format!("mbarrier.test_wait.parity.shared.b64 %q, [%r1], {parity}; selp.u32 {to}, 1, 0, %q;\n")
    };
    let body = format!(
        "{INIT} @!%p bra END;\nmbarrier.init.shared.b64 [%r1], 2;\n{}{}\
         mbarrier.arrive.expect_tx.shared.b64 %rd1, [%r1], 64;\nmbarrier.arrive.shared.b64 %rd2, [%r1];\n{}\
         mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r1], 64;\n{}\
         mbarrier.test_wait.shared.b64 %q, [%r1], %rd1; selp.u32 %r6, 1, 0, %q;\n\
         mad.lo.u32 %d, %r3, 10, %r2; mad.lo.u32 %d, %r4, 100, %d; mad.lo.u32 %d, %r5, 1000, %d; mad.lo.u32 %d, %r6, 10000, %d;\nEND:",
        poll(0, "%r2"),
        poll(1, "%r3"),
        poll(0, "%r4"),
        poll(0, "%r5"),
    );
    // Phase 0 is open, the one before counts as complete; arrivals alone do not end it; bytes do.
    assert_eq!(lanes(&body, NONE)[0], 11010);
}

#[test]
fn misuse_of_barrier_objects_is_refused() {
    let only_lane_0 = |rest: &str| format!("{INIT} @!%p bra END;\n{rest}\nEND:");
    assert!(misuse(&only_lane_0("mbarrier.arrive.shared.b64 _, [%r1];")).contains("no barrier object"));
    let init = "mbarrier.init.shared.b64 [%r1], 1;\n";
    assert!(misuse(&only_lane_0(&format!("{init}{init}"))).contains("initialised while"));
    assert!(misuse(&only_lane_0("mbarrier.init.shared.b64 [%r1], 0;")).contains("count of 0"));
    assert!(
        misuse(&only_lane_0(&format!("{init} mbarrier.arrive.shared.b64 _, [%r1], 2;")))
            .contains("2 arrivals")
    );
    assert!(misuse(&only_lane_0(&format!("{init} ld.shared.u32 %d, [%r1];"))).contains("ordinary access"));
    assert!(
        misuse(&only_lane_0(&format!("{init} st.shared.u32 [%r1+4], %lane;"))).contains("ordinary access")
    );
    let again = only_lane_0(&format!("{init} mbarrier.inval.shared.b64 [%r1]; {init}"));
    assert_eq!(lanes(&again, NONE), [0; 32]);
    assert!(matches!(
        fault(&only_lane_0("mbarrier.init.shared.b64 [%r1+4], 1;")).kind,
        FaultKind::Misaligned { .. }
    ));
}

#[test]
fn copies_arrive_on_a_barrier() {
    let body =
        copy("").replace("cp.async.commit_group;", "cp.async.mbarrier.arrive.noinc.shared.b64 [%r5];") + "";
    let body = format!(
        "mov.u32 %r5, shared; add.u32 %r5, %r5, 4096; setp.eq.u32 %p, %lane, 0;\n\
         @%p mbarrier.init.shared.b64 [%r5], 32; bar.warp.sync -1;\n{}",
        body.replace(
            "ld.shared.v2",
            "WAIT: mbarrier.try_wait.parity.shared.b64 %q, [%r5], 0; @!%q bra WAIT;\nld.shared.v2"
        )
    );
    for timing in [Timing::Early, Timing::Late] {
        let got = attempt(&body, [&[5], &[], &[]], timing).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(got[3], 10);
    }
}

#[test]
fn bounds_alignment_and_initial_values_are_checked() {
    assert!(matches!(fault("ld.shared.u32 %d, [shared];").kind, FaultKind::Uninitialised { .. }));
    assert!(matches!(
        fault("ld.param.u64 %rd1, [p3]; ld.global.u32 %d, [%rd1];").kind,
        FaultKind::Uninitialised { .. }
    ));
    assert!(matches!(
        fault("ld.param.u64 %rd1, [p0]; ld.global.v4.u32 {%d, %r1, %r2, %r3}, [%rd1+8];").kind,
        FaultKind::Misaligned { align: 16, .. }
    ));
    let outside = fault(
        "ld.param.u64 %rd1, [p0]; mul.wide.u32 %rd2, %lane, 16; add.s64 %rd1, %rd1, %rd2; ld.global.u32 %d, [%rd1];",
    );
    assert!(matches!(outside.kind, FaultKind::OutOfBounds { .. }), "{outside}");
    assert_eq!(outside.position.unwrap().lane, Some(16));
    assert!(matches!(
        fault("mov.u32 %r1, shared; st.shared.u32 [%r1+8192], %lane;").kind,
        FaultKind::OutOfBounds { .. }
    ));
    assert!(matches!(fault("trap;").kind, FaultKind::Trap));
    assert!(matches!(fault("L: bra L;").kind, FaultKind::Budget(_)));
    assert!(matches!(fault("bar.sync 1, 64;").kind, FaultKind::Deadlock(_)));
    assert!(matches!(fault("bar.sync 1, 40;").kind, FaultKind::Undefined(_)));
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = "mov.u64 %rd1, shared; cvta.shared.u64 %rd1, %rd1; mul.wide.u32 %rd2, %lane, 8; add.s64 %rd1, %rd1, %rd2;\n\
                st.u64 [%rd1], %la; cvta.to.shared.u64 %rd3, %rd1; cvt.u32.u64 %r1, %rd3; ld.shared.u64 %ld, [%r1];";
    assert_eq!(one(body, 0x1234_5678_9abc, 0, 0), 0x1234_5678_9abc);
    let narrow = "mov.u32 %r1, shared; st.shared.u32 [%r1], 0xfffefd80; ld.shared.s8 %d, [%r1]; ld.shared.u16 %r2, [%r1+2]; add.u32 %d, %d, %r2;";
    assert_eq!(one(narrow, 0, 0, 0), 0xffff_ff80u64.wrapping_add(0xfffe) & 0xffff_ffff);
}

#[test]
fn barriers_reduce_predicates() {
    assert_eq!(one("setp.lt.u32 %p, %lane, 5; bar.red.popc.u32 %d, 0, %p;", 0, 0, 0), 5);
    assert_eq!(
        one("setp.lt.u32 %p, %lane, 5; bar.red.or.pred %q, 0, %p; selp.u32 %d, 1, 2, %q;", 0, 0, 0),
        1
    );
    assert_eq!(
        one("setp.lt.u32 %p, %lane, 5; bar.red.and.pred %q, 0, %p; selp.u32 %d, 1, 2, %q;", 0, 0, 0),
        2
    );
}

#[test]
fn hints_change_nothing() {
    let body = "ld.param.u64 %rd1, [p0]; prefetch.global.L2 [%rd1]; cp.async.bulk.prefetch.L2.global [%rd1], 256;\n\
                createpolicy.fractional.L2::evict_first.b64 %rd2, 1.0;\n\
                ld.global.nc.L1::no_allocate.L2::cache_hint.v2.u64 {%ld, %rd3}, [%rd1], %rd2;\n\
                griddepcontrol.wait; griddepcontrol.launch_dependents; fence.proxy.async.global; fence.acq_rel.gpu;";
    assert_eq!(one(body, 42, 0, 0), 42);
}
