//! Exchange between lanes, divergence, and atomics.

#[path = "fixture/snippet.rs"]
mod snippet;

use fireq_sim::{FaultKind, Timing};
use snippet::{attempt, lanes, one};

const NONE: [&[u64]; 3] = [&[], &[], &[]];

fn numbers() -> Vec<u64> {
    (0..32).map(|i| 100 + i).collect()
}

#[test]
fn shuffles_move_values_within_segments() {
    let shuffle = |mode: &str, by: u64, c: u64| {
        lanes(&format!("shfl.sync.{mode}.b32 %d|%p, %a, {by}, {c}, -1;"), [&numbers(), &[], &[]])
    };
    assert_eq!(shuffle("bfly", 1, 31)[..4], [101, 100, 103, 102]);
    assert_eq!(shuffle("down", 16, 31)[15..18], [131, 116, 117]);
    assert_eq!(shuffle("up", 2, 0)[..4], [100, 101, 100, 101]);
    assert_eq!(shuffle("idx", 5, 31), [105; 32]);
    // Segments of eight lanes: segment mask 24 in bits 8 to 12.
    assert_eq!(shuffle("idx", 3, 24 << 8 | 31)[6..10], [103, 103, 111, 111]);
    assert_eq!(shuffle("down", 6, 24 << 8 | 31)[0..4], [106, 107, 102, 103]);
    let valid =
        lanes("shfl.sync.down.b32 %r1|%p, %a, 6, 6175, -1; selp.u32 %d, 1, 0, %p;", [&numbers(), &[], &[]]);
    assert_eq!(valid[..8], [1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r1, %lane, 1; setp.ne.u32 %p, %r1, 0;";
    assert_eq!(lanes(&format!("{odd} vote.sync.ballot.b32 %d, %p, -1;"), NONE), [0xaaaa_aaaa; 32]);
    let any = format!("{odd} vote.sync.any.pred %q, %p, -1; selp.u32 %d, 1, 0, %q;");
    assert_eq!(one(&any, 0, 0, 0), 1);
    let all = format!("{odd} vote.sync.all.pred %q, !%p, -1; selp.u32 %d, 1, 0, %q;");
    assert_eq!(one(&all, 0, 0, 0), 0);
    let thirds: Vec<u64> = (0..32).map(|i| i % 3).collect();
    let matched = lanes("match.any.sync.b32 %d, %a, -1;", [&thirds, &[], &[]]);
    assert_eq!(matched[..3], [0x4924_9249, 0x9249_2492, 0x2492_4924]);
    let same = "match.all.sync.b32 %r1|%p, %a, -1; selp.u32 %d, %r1, 7, %p;";
    assert_eq!(lanes(same, [&thirds, &[], &[]])[0], 7);
    assert_eq!(one(same, 4, 0, 0), 0xffff_ffff);
    assert_eq!(lanes("redux.sync.add.u32 %d, %a, -1;", [&numbers(), &[], &[]]), [100 * 32 + 496; 32]);
    let signed: Vec<u64> = (0..32u32).map(|i| u64::from(5u32.wrapping_sub(i))).collect();
    assert_eq!(lanes("redux.sync.min.s32 %d, %a, -1;", [&signed, &[], &[]])[9], u64::from(-26i32 as u32));
    assert_eq!(lanes("elect.sync %r1|%p, -1; selp.u32 %d, 1, 0, %p;", NONE).iter().sum::<u64>(), 1);
}

#[test]
fn diverged_lanes_meet_again() {
    // Lane i loops i times; then all lanes vote.
    let body = "mov.u32 %r1, 0;\nLOOP: setp.ge.u32 %p, %r1, %lane; @%p bra OUT;\nadd.u32 %r1, %r1, 1; bra LOOP;\n\
                OUT: activemask.b32 %r2; setp.eq.u32 %q, %r2, -1; selp.u32 %d, %r1, 99, %q;";
    assert_eq!(lanes(body, NONE), (0..32).collect::<Vec<u64>>());
    // Nested: parity, then halves; the mask inside is the intersection.
    let body = "and.b32 %r1, %lane, 1; setp.eq.u32 %p, %r1, 0; @%p bra EVEN;\nmov.u32 %d, 1; bra JOIN;\n\
                EVEN: setp.lt.u32 %q, %lane, 16; @!%q bra HIGH;\nactivemask.b32 %d; bra JOIN;\n\
                HIGH: mov.u32 %d, 3;\nJOIN: activemask.b32 %r2; add.u32 %d, %d, %r2;";
    let got = lanes(body, NONE);
    assert_eq!(got[..2], [0x5555 - 1, 0]);
    assert_eq!(got[16..18], [2, 0]);
}

#[test]
fn exited_lanes_are_not_waited_for() {
    let body = "setp.gt.u32 %p, %lane, 15; @%p bra OUT;\nbra.uni GO;\nOUT: mov.u32 %d, 5; bra.uni END;\n\
                GO: activemask.b32 %d;\nEND:";
    assert_eq!(lanes(body, NONE)[0], 0xffff);
    assert_eq!(lanes(body, NONE)[20], 5);
}

#[test]
fn branch_tables_jump_by_index() {
    let body = "and.b32 %r1, %lane, 3;\nTABLE: .branchtargets ZERO, ONE, TWO, ONE;\nbrx.idx %r1, TABLE;\n\
                ZERO: mov.u32 %d, 10; bra END;\nONE: mov.u32 %d, 11; bra END;\nTWO: mov.u32 %d, 12;\nEND:";
    assert_eq!(lanes(body, NONE)[..5], [10, 11, 12, 11, 10]);
}

#[test]
fn lanes_on_different_paths_synchronise() {
    // Each side of the branch waits for the other one within the warp.
    let body = "mov.u32 %r2, shared; mul.lo.u32 %r3, %lane, 4; add.u32 %r3, %r3, %r2;\n\
                setp.lt.u32 %p, %lane, 16; @%p bra LOW;\nst.shared.u32 [%r3], %lane; bar.warp.sync -1; bra END;\n\
                LOW: bar.warp.sync -1; ld.shared.u32 %d, [%r3+64];\nEND:";
    assert_eq!(lanes(body, NONE)[..16], (16..32).collect::<Vec<u64>>());
    let alone = "setp.lt.u32 %p, %lane, 16; @!%p bra END; bar.warp.sync -1;\nEND: bar.warp.sync 65535;";
    let fault = attempt(alone, NONE, Timing::Late).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::Undefined(_) | FaultKind::Deadlock(_)), "{fault}");
}

#[test]
fn atomics_update_lane_by_lane() {
    let sum = "mov.u32 %r1, shared; setp.eq.u32 %p, %lane, 0; @%p st.shared.u32 [%r1], 1000; bar.warp.sync -1;\n\
               atom.shared.add.u32 %r2, [%r1], %a; bar.warp.sync -1; ld.shared.u32 %d, [%r1];";
    assert_eq!(lanes(sum, [&numbers(), &[], &[]])[3], 1000 + 100 * 32 + 496);
    let global = |op: &str| {
        lanes(&format!("ld.param.u64 %rd1, [p1]; {op} ld.global.u64 %ld, [%rd1];"), [&numbers(), &[7], &[]])
            [31]
    };
    assert_eq!(global("atom.global.max.u32 %r2, [%rd1], %a;"), 131);
    assert_eq!(global("red.global.min.s32 [%rd1], -5;"), 0xffff_fffb);
    assert_eq!(global("atom.global.exch.b64 %rd2, [%rd1], %la;"), 131);
    assert_eq!(global("atom.global.cas.b32 %r2, [%rd1], 7, %a;"), 100);
    assert_eq!(global("atom.global.inc.u32 %r2, [%rd1], 9;"), (7 + 32) % 10);
    let float = "ld.param.u64 %rd1, [p1]; red.global.add.f32 [%rd1], %fa; ld.global.u32 %d, [%rd1];";
    let half = u64::from(0.5f32.to_bits());
    assert_eq!(lanes(float, [&[half], &[half], &[]])[0], u64::from(16.5f32.to_bits()));
}
