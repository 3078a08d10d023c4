//! Instructions that several lanes execute together.

use super::Machine;
use super::step::Next;
use super::warp::Wait;
use crate::fault::{Trouble, undefined};
use crate::op::Op;
use crate::program::{Inst, Reg};

impl Machine<'_> {
    /// Collects the lanes that an instruction for several lanes needs; without them the fragment waits.
    pub(super) fn gather(
        &mut self,
        w: usize,
        fragment: usize,
        inst: &Inst,
        mask: u32,
    ) -> Result<Option<(u32, Vec<usize>)>, Trouble> {
        let warp = &mut self.warps[w];
        let needed = match needs(&inst.op) {
            Needs::Own => return Ok(Some((mask, vec![]))),
            Needs::Warp => warp.live,
            Needs::Mask(row) => warp.rows[row as usize][mask.trailing_zeros() as usize] as u32 & warp.live,
        };
        if mask & !needed != 0 {
            return Err(undefined(format!("lanes {mask:#010x} where the mask is {needed:#010x}")).into());
        }
        if mask == needed {
            return Ok(Some((mask, vec![])));
        }
        let (code, pc) = (&self.world.kernel.code, warp.fragments[fragment].pc);
        let syncs = |pc: u32| matches!(code[pc as usize].op, Op::WarpSync { .. });
        let together = |other: u32| other == pc || syncs(other) && syncs(pc);
        let waiting = warp.fragments.iter().enumerate();
        let others: Vec<usize> =
            waiting.filter(|(_, f)| f.wait == Some(Wait::Lanes) && together(f.pc)).map(|(i, _)| i).collect();
        let union = others.iter().fold(mask, |m, i| m | warp.fragments[*i].ready);
        if union == needed {
            return Ok(Some((union, others)));
        }
        warp.fragments[fragment].wait = Some(Wait::Lanes);
        warp.fragments[fragment].ready = mask;
        Ok(None)
    }

    pub(super) fn follow(&mut self, w: usize, fragment: usize, others: &[usize], next: &Next) {
        if matches!(next, Next::Moved | Next::Jumped) {
            return;
        }
        let progress = self.progress;
        for i in others.iter().copied().chain([fragment]) {
            let f = &mut self.warps[w].fragments[i];
            f.wait = None;
            match next {
                Next::Follow => f.pc += 1,
                Next::Yield => {
                    f.pc += 1;
                    f.idle = progress;
                }
                Next::Retry => f.idle = progress,
                Next::Wait(wait, advances) => {
                    f.pc += u32::from(*advances);
                    f.wait = Some(*wait);
                }
                Next::Moved | Next::Jumped => {}
            }
        }
    }
}

/// Which lanes have to execute an instruction together.
enum Needs {
    Own,
    Warp,
    Mask(Reg),
}

fn needs(op: &Op) -> Needs {
    match op {
        Op::Shuffle { mask, .. }
        | Op::Vote { mask, .. }
        | Op::Match { mask, .. }
        | Op::Redux { mask, .. }
        | Op::Elect { mask, .. }
        | Op::WarpSync { mask } => Needs::Mask(*mask),
        Op::Barrier { .. }
        | Op::ClusterArrive
        | Op::ClusterWait
        | Op::LoadMatrix { .. }
        | Op::StoreMatrix { .. }
        | Op::Mma { .. }
        | Op::Wgmma(_)
        | Op::WgmmaFence
        | Op::WgmmaCommit
        | Op::WgmmaWait { .. } => Needs::Warp,
        _ => Needs::Own,
    }
}
