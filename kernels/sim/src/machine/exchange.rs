//! Exchange of values between the lanes of a warp.

use super::Machine;
use super::step::{assign, mask_of};
use super::warp::lanes;
use crate::decode::SHARED_WINDOW;
use crate::fault::{AtLane, Trouble, undefined};
use crate::op::{Op, Shuffle, Vote};
use crate::program::{LANES, Reg, Row};

impl Machine<'_> {
    pub(super) fn exchange(&mut self, w: usize, op: &Op, mask: u32) -> Result<(), Trouble> {
        let rows = &mut self.warps[w].rows;
        match *op {
            Op::Shuffle { mode, d, p, s, .. } => {
                let (value, valid) = shuffle(mode, s.map(|r| &rows[r as usize]), mask)?;
                assign(&mut rows[d as usize], &value, mask);
                assign(&mut rows[p as usize], &valid, mask);
            }
            Op::Vote { mode, d, p, .. } => {
                let votes = mask_of(&rows[p as usize]) & mask;
                let result = match mode {
                    Vote::All => u32::from(votes == mask),
                    Vote::Any => u32::from(votes != 0),
                    Vote::Uniform => u32::from(votes == mask || votes == 0),
                    Vote::Ballot => votes,
                };
                assign(&mut rows[d as usize], &[result.into(); LANES], mask);
            }
            Op::Match { all, d, a, .. } => matching(rows, all, d, a, mask),
            Op::Redux { f, d, a, .. } => {
                let total = lanes(mask).map(|l| rows[a as usize][l]).reduce(f).unwrap_or(0);
                assign(&mut rows[d as usize], &[total; LANES], mask);
            }
            Op::ActiveMask { d } => assign(&mut rows[d as usize], &[mask.into(); LANES], mask),
            Op::Elect { d, p, .. } => {
                let leader = mask.trailing_zeros();
                let elected = std::array::from_fn(|lane| u64::from(lane as u32 == leader));
                assign(&mut rows[d as usize], &[leader.into(); LANES], mask);
                assign(&mut rows[p as usize], &elected, mask);
            }
            _ => {}
        }
        Ok(())
    }

    /// `mapa`: the address of the same offset in the CTA of another rank.
    pub(super) fn map_rank(
        &mut self,
        w: usize,
        d: Reg,
        [a, rank]: [Reg; 2],
        generic: bool,
        mask: u32,
    ) -> Result<(), Trouble> {
        let ranks = self.ctas.len() as u64;
        let rows = &mut self.warps[w].rows;
        for lane in lanes(mask) {
            let to = rows[rank as usize][lane];
            if to >= ranks {
                return Err(undefined(format!("rank {to} of a cluster of {ranks}"))).at_lane(lane);
            }
            let window = if generic { SHARED_WINDOW } else { 0 };
            rows[d as usize][lane] = window | to << 24 | rows[a as usize][lane] & 0xff_ffff;
        }
        Ok(())
    }
}

/// Values and validity as the instruction set defines them: `c` holds the clamp in bits 0–4 and the segment mask in
/// bits 8–12.
fn shuffle(mode: Shuffle, [a, b, c]: [&Row; 3], mask: u32) -> Result<(Row, Row), Trouble> {
    let (mut value, mut valid) = ([0; LANES], [0; LANES]);
    for lane in lanes(mask) {
        let me = lane as i64;
        let (by, clamp, segment) = ((b[lane] & 31) as i64, (c[lane] & 31) as i64, (c[lane] >> 8 & 31) as i64);
        let least = me & segment;
        let most = least | clamp & !segment;
        let from = match mode {
            Shuffle::Up => me - by,
            Shuffle::Down => me + by,
            Shuffle::Butterfly => me ^ by,
            Shuffle::Index => least | by & !segment,
        };
        let inside = if mode == Shuffle::Up { from >= most } else { from <= most };
        let from = if inside { from as usize } else { lane };
        if mask >> from & 1 == 0 {
            return Err(undefined(format!("shfl reads lane {from}, which does not take part"))).at_lane(lane);
        }
        value[lane] = a[from];
        valid[lane] = inside.into();
    }
    Ok((value, valid))
}

fn matching(rows: &mut [Row], all: Option<Reg>, d: Reg, a: Reg, mask: u32) {
    let values = rows[a as usize];
    let same = |lane: usize| lanes(mask).filter(|l| values[*l] == values[lane]).fold(0, |m, l| m | 1u32 << l);
    let groups: Row = std::array::from_fn(|lane| same(lane).into());
    let Some(p) = all else {
        assign(&mut rows[d as usize], &groups, mask);
        return;
    };
    let agreed = lanes(mask).all(|l| groups[l] == u64::from(mask));
    assign(&mut rows[d as usize], &[if agreed { mask.into() } else { 0 }; LANES], mask);
    assign(&mut rows[p as usize], &[agreed.into(); LANES], mask);
}
