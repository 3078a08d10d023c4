//! Where diverged threads meet again: the immediate post-dominators of branches.

use crate::program::{Inst, Op};

/// Fills in `rejoin` of every branch; it stays at its largest value where paths only meet at the end.
pub(crate) fn set_rejoins(code: &mut [Inst]) {
    let starts = block_starts(code);
    let block_of = |pc: u32| starts.partition_point(|s| *s <= pc) - 1;
    let exit = starts.len();
    let followers: Vec<Vec<usize>> = (0..exit)
        .map(|b| {
            let end = starts.get(b + 1).copied().unwrap_or(code.len() as u32);
            successors(code, end - 1).into_iter().map(|pc| pc.map_or(exit, block_of)).collect()
        })
        .collect();
    let meets = post_dominators(&followers, exit);
    for pc in 0..code.len() {
        let meet = meets[block_of(pc as u32)].filter(|b| *b != exit).map_or(u32::MAX, |b| starts[b]);
        if let Op::Branch { rejoin, .. } | Op::BranchTable { rejoin, .. } = &mut code[pc].op {
            *rejoin = meet;
        }
    }
}

fn block_starts(code: &[Inst]) -> Vec<u32> {
    let mut starts = vec![0];
    for (pc, inst) in code.iter().enumerate() {
        match &inst.op {
            Op::Branch { target, .. } => starts.extend([*target, pc as u32 + 1]),
            Op::BranchTable { targets, .. } => {
                starts.extend(targets);
                starts.push(pc as u32 + 1);
            }
            Op::Exit | Op::Trap => starts.push(pc as u32 + 1),
            _ => {}
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|s| *s < code.len() as u32);
    starts
}

/// Where control goes after this instruction; `None` is the end of the kernel.
fn successors(code: &[Inst], pc: u32) -> Vec<Option<u32>> {
    let next = (pc + 1 < code.len() as u32).then_some(pc + 1);
    let inst = &code[pc as usize];
    let mut to = match &inst.op {
        Op::Branch { target, .. } => vec![Some(*target)],
        Op::BranchTable { targets, .. } => targets.iter().map(|t| Some(*t)).collect(),
        Op::Exit | Op::Trap => vec![None],
        _ => return vec![next],
    };
    if inst.guard.is_some() {
        to.push(next);
    }
    to
}

/// Cooper, Harvey and Kennedy's algorithm on the reversed graph; `None` where the end cannot be reached.
fn post_dominators(followers: &[Vec<usize>], exit: usize) -> Vec<Option<usize>> {
    let mut precede = vec![vec![]; exit + 1];
    for (block, to) in followers.iter().enumerate() {
        for t in to {
            precede[*t].push(block);
        }
    }
    let order = post_order(&precede, exit);
    let mut rank = vec![usize::MAX; exit + 1];
    order.iter().enumerate().for_each(|(i, b)| rank[*b] = i);
    let mut meets = vec![None; exit + 1];
    meets[exit] = Some(exit);
    let mut changed = true;
    while changed {
        changed = false;
        for block in order.iter().rev().filter(|b| **b != exit) {
            let mut known = followers[*block].iter().copied().filter(|b| meets[*b].is_some());
            let first = known.next();
            let meet = first.map(|first| known.fold(first, |a, b| intersect(&meets, &rank, a, b)));
            changed |= meet != meets[*block];
            meets[*block] = meet;
        }
    }
    meets
}

fn intersect(meets: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        while rank[a] < rank[b] {
            a = meets[a].unwrap_or(b);
        }
        while rank[b] < rank[a] {
            b = meets[b].unwrap_or(a);
        }
    }
    a
}

/// Blocks that reach the end, in post-order of a walk from the end backwards.
fn post_order(precede: &[Vec<usize>], exit: usize) -> Vec<usize> {
    let mut seen = vec![false; precede.len()];
    let (mut order, mut stack) = (vec![], vec![(exit, 0)]);
    seen[exit] = true;
    while let Some((block, next)) = stack.pop() {
        match precede[block].get(next) {
            Some(to) => {
                stack.push((block, next + 1));
                if !seen[*to] {
                    seen[*to] = true;
                    stack.push((*to, 0));
                }
            }
            None => order.push(block),
        }
    }
    order
}
