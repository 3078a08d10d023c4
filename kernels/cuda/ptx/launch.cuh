#pragma once

// Launches that begin before earlier ones have ended (programmatic dependent launch; PTX ISA, griddepcontrol; CUDA Programming
// Guide 4.5): what stands in front of the wait overlaps with the end of the launch before. Where launches do not overlap, both
// instructions do nothing. What this gains is not measured: a program says for each launch whether it `overlaps`, and one without
// is what to compare with.
//
// The rules, which the simulator checks for every kernel:
//   - A thread waits before it reads what any launch may write, or writes what any launch may read. Parameters, what the host
//     writes for a step, weights and tables of the model can be read in front of the wait: no launch writes them.
//   - Memory that launches write is read by ordinary loads only, never by those of constant memory (`ld.global.nc`): it changes
//     while the kernel runs, if not behind the wait.
//   - Copies (TMA) are asked for behind the wait of the thread that asks; no fence of proxies is needed, as at the beginning of any
//     launch, and CUTLASS has none there.
//   - Of every grid at least one thread waits. The wait is for the launch before alone; that this one ends behind all earlier ones
//     follows from its own wait.
//
// Later launches may begin behind the wait, and at once: then the launch before has ended, so that no more than two are in flight.
// They find room as this one's CTAs leave: one for each SM where shared memory or registers are all taken, as in products.
// Since all CTAs of this launch have begun by then, they take no room that it needs, and wait without issuing instructions.
// What they read ahead are weights, which memory would have to bring in anyway.

namespace fireq {

/// Waits until earlier launches have ended, and this thread can see what they wrote. What copies read that it asks for
/// afterwards is behind them, too.
__device__ inline void wait_for_earlier_launches() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/// Lets later launches begin once every CTA has said so or has ended. What this launch writes they see behind their own wait.
__device__ inline void let_later_launches_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace fireq
