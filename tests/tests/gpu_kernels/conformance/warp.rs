//! Exchanges within a warp.

use super::{Inputs, lanes};
use crate::device::device;

const WARP: (&str, &str) = ("warp", include_str!("warp.cu"));
const LANES: usize = 32;

/// Compares a kernel with what the lanes of each warp should find.
fn check_warps(kernel: &str, inputs: &Inputs, want: impl Fn(usize, &[[u64; 3]]) -> u64) {
    let Some(mut gpu) = device() else { return };
    for (w, found) in lanes(&mut gpu, WARP, kernel, inputs).chunks(LANES).enumerate() {
        let of: Vec<[u64; 3]> =
            (0..LANES).map(|lane| inputs.of(w * LANES + lane).map(|x| x & 0xffff_ffff)).collect();
        for (lane, found) in found.iter().enumerate() {
            let want = want(lane, &of);
            assert_eq!(
                *found, want,
                "{kernel}: lane {lane} of warp {w} finds {found:#x} instead of {want:#x}"
            );
        }
    }
}

/// The source of a lane, and whether it is within the segment: of lane, distance, and the segment's last and first lane.
type Source = fn(i64, i64, i64, i64) -> (i64, bool);

/// The modes of a shuffle, with each lane's own distance, segments of every size, and the source being out of them or not.
#[test]
fn shuffles() {
    let mut inputs = Inputs::random(20, 1024, &[]);
    for i in 0..1024 {
        let segment = [0, 16, 24, 28, 30, 31][i / LANES % 6];
        inputs.b[i] &= [31, 63, 3][i / 512 % 3];
        inputs.c[i] = segment << 8 | if i / 256 % 2 == 0 { 31 } else { inputs.c[i] & 31 };
    }
    let modes: [(&str, Source); 4] = [
        ("shuffle_up", |lane, b, most, _| (lane - b, lane - b >= most)),
        ("shuffle_down", |lane, b, most, _| (lane + b, lane + b <= most)),
        ("shuffle_butterfly", |lane, b, most, _| (lane ^ b, lane ^ b <= most)),
        ("shuffle_index", |_, b, most, least| (least | b, least | b <= most)),
    ];
    for (kernel, source) in modes {
        check_warps(kernel, &inputs, |lane, of| {
            let [_, b, c] = of[lane].map(|x| x as i64);
            let (clamp, segment) = (c & 31, c >> 8 & 31);
            let index = kernel == "shuffle_index";
            let b = b & 31 & if index { !segment } else { 31 };
            let (fixed, lane) = (lane as i64 & segment, lane as i64);
            let (from, within) = source(lane, b, fixed | clamp & !segment, fixed);
            let from = if within { from } else { lane };
            of[from as usize][0] | u64::from(within) << 32
        });
    }
}

#[test]
fn reductions_over_a_warp() {
    let inputs = Inputs::random(21, 256, &[]);
    let signed = |of: &[[u64; 3]]| of.iter().map(|x| x[0] as i32).collect::<Vec<_>>();
    check_warps("sum_all", &inputs, |_, of| of.iter().map(|x| x[0]).sum::<u64>() & 0xffff_ffff);
    check_warps("least_signed", &inputs, |_, of| u64::from(*signed(of).iter().min().unwrap() as u32));
    check_warps("most_unsigned", &inputs, |_, of| of.iter().map(|x| x[0]).max().unwrap());
    check_warps("xor_all", &inputs, |_, of| of.iter().fold(0, |all, x| all ^ x[0]));
}

#[test]
fn votes_and_matches() {
    let mut inputs = Inputs::random(22, 512, &[]);
    for (i, b) in inputs.b.iter_mut().enumerate() {
        // Small numbers, all below 62 in some warps and all the same in one; two groups of 32 in others.
        *b = match i / LANES % 5 {
            0 => 5,
            1 => 63,
            2 => *b & 31,
            3 => 32 + (*b & 31),
            _ => *b & 63,
        };
    }
    let count = |of: &[[u64; 3]], p: fn(u64) -> bool| of.iter().filter(|x| p(x[1])).count();
    let ballot = |of: &[[u64; 3]], p: &dyn Fn(u64) -> bool, at: usize| -> u64 {
        of.iter().enumerate().map(|(i, x)| u64::from(p(x[at])) << i).sum()
    };
    check_warps("vote_ballot", &inputs, |_, of| ballot(of, &|x| x >> 31 == 1, 0));
    check_warps("vote_all", &inputs, |_, of| u64::from(count(of, |b| b < 62) == LANES) << 32);
    check_warps("vote_any", &inputs, |_, of| u64::from(count(of, |b| b > 62) > 0) << 32);
    check_warps("vote_uniform", &inputs, |_, of| u64::from(count(of, |b| b < 62) % LANES == 0) << 32);
    check_warps("match_any", &inputs, |lane, of| ballot(of, &|x| x == of[lane][1], 1));
    check_warps("match_all", &inputs, |_, of| {
        let same = of.iter().all(|x| x[1] >> 5 == of[0][1] >> 5);
        if same { 1 << 32 | 0xffff_ffff } else { 0 }
    });
}
