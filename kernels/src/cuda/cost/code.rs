//! What machine code takes: counts of a step's instructions, and registers.

use super::super::linear::LinearConfig;

/// Instructions of a consumer warp for a step of 128 columns, in machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepInstructions {
    /// All.
    pub issued: usize,
    /// Those of the integer pipe, which takes one in two cycles: byte permutations, logic, shifts, additions.
    pub integer: usize,
}

/// Shifts of a step that are upper halves of products: three for each of a lane's 8 words of 8 codes. The pipe of multiplications
/// takes one in four cycles, an estimate: twice what it takes for lower halves.
pub const MULTIPLIED: usize = 8 * 3;

/// The instructions of a step: 11 for each of a lane's 8 words of 8 codes, 6 of them byte permutations, 2 logic, and 3 shifts that
/// are products: on the integer pipe, they would bound all products of few tokens; 32 for the tables of a pair of scales, 12 of them integer; and for barriers, addresses and products 26, 6 of them integer, 19
/// and 3 in stages of four steps, or 49 and 11 where sums are promoted within a stage. A promotion is an addition for each of a
/// lane's sums, and nine around them.
pub fn step_instructions(config: &LinearConfig, group: usize) -> StepInstructions {
    let tables = 128 / group;
    let promoting = if config.promotion > 0 { (config.tokens / 2 + 9).div_ceil(config.promotion) } else { 0 };
    let [beside, integer] = match config.steps {
        steps if (1..steps).contains(&config.promotion) => [49, 11],
        4 => [19, 3],
        _ => [26, 6],
    };
    StepInstructions {
        issued: 8 * 11 + 32 * tables + beside + promoting,
        integer: 8 * 8 + 12 * tables + integer,
    }
}

/// Registers of a thread, as the compiler allots them; where consumers take some of the producer's they have 240.
pub fn registers(config: &LinearConfig, group: usize) -> usize {
    match (config.tokens, config.steps, config.promotion) {
        (128 | 256, ..) if config.trades_registers() => {
            if config.warpgroups == 2 {
                168
            } else {
                240
            }
        }
        (..=8, 4, _) | (32, 2, 1..) | (64, 2, 0) => 96,
        (..=16, 4, _) => 104,
        (32, 4, 0) => 112,
        (64, 4, 1..) | (128, 4, _) => 168,
        (16, _, 1) | (32, 2, _) => 80,
        (..=16, ..) => 72,
        (64, _, 1..) => 136,
        _ if group == 64 => 136,
        _ => 128,
    }
}
