//! Programs that come from files.
//!
//! A program is one that a runtime may launch where
//!
//! * every function has a name, every CTA 1 to 1024 threads, every cluster 1 to 16 CTAs, every grid numbers from 1 to 2³¹;
//! * attention is one that there is a kernel for;
//! * addresses are of regions and of parts of buffers that there are, and lie inside a buffer's row;
//! * bytes for each key and elements of each row are fewer than 2³¹;
//! * TMA descriptors are of addresses;
//! * what overlaps has a kernel in front of it: the first launch runs in every step, and overlaps none.

use super::{Argument, Count, Launch, Program, When};
use crate::cuda::unit::Grid;

impl Program {
    /// The first reason why this is no program for buffers of which the n-th has parts of `rows[n]` bytes a row.
    pub fn verify(&self, rows: &[Vec<usize>]) -> Result<(), String> {
        let begins = |launch: &Launch| {
            !launch.overlaps && launch.rows == Count::Tokens && launch.when == When::default()
        };
        let overlap = self.launches.iter().any(|launch| launch.overlaps);
        require(!overlap || self.launches.first().is_some_and(begins), || {
            "launches overlap those in front of them, and the first is not one that begins every step".into()
        })?;
        for launch in self.launches.iter().chain(&self.sample) {
            self.verify_launch(launch, rows).map_err(|reason| format!("`{}`: {reason}", launch.symbol))?;
        }
        Ok(())
    }

    fn verify_launch(&self, launch: &Launch, rows: &[Vec<usize>]) -> Result<(), String> {
        let Launch { function, cta, grid, arguments, result, .. } = launch;
        require(!function.is_empty() && !function.contains(['/', '\\', '.', '\0']), || {
            format!("`{function}` is no function")
        })?;
        require((1..=1024).contains(&cta.threads) && (1..=16).contains(&cta.cluster), || {
            format!("there are no CTAs like {cta:?}")
        })?;
        require(numbers(*grid).iter().all(|n| (1..FACTOR).contains(n)), || format!("{grid:?} is no grid"))?;
        if let Grid::Splits(of) = grid {
            of.check().map_err(|e| e.to_string())?;
        }
        require(result.is_none_or(|buffer| buffer < rows.len()), || "its result is no buffer".into())?;
        arguments.iter().try_for_each(|argument| self.verify_argument(argument, rows))
    }

    fn verify_argument(&self, argument: &Argument, rows: &[Vec<usize>]) -> Result<(), String> {
        match argument {
            Argument::Buffer { buffer, part, offset } => {
                let bytes = rows.get(*buffer).and_then(|parts| parts.get(*part));
                require(bytes.is_some_and(|bytes| offset < bytes), || {
                    format!("byte {offset} of part {part} of buffer {buffer} does not exist")
                })
            }
            Argument::Region { region, by_key } => {
                require(*region < self.regions.len(), || format!("region {region} does not exist"))?;
                require(*by_key < FACTOR, || format!("{by_key} bytes for each key"))
            }
            Argument::Elements(cols) => require(*cols < FACTOR, || format!("{cols} elements of each row")),
            Argument::Map { of, .. } => match **of {
                Argument::Buffer { .. } | Argument::Region { .. } => self.verify_argument(of, rows),
                _ => Err("a descriptor is of what is no address".into()),
            },
            _ => Ok(()),
        }
    }
}

/// Numbers that rows and positions are multiplied with are less, so that products fit.
const FACTOR: usize = 1 << 31;

/// What a grid divides by or multiplies with.
fn numbers(grid: Grid) -> Vec<usize> {
    match grid {
        Grid::Rows => vec![],
        Grid::RowParts(parts) => vec![parts],
        Grid::Elements { cols, per_cta } => vec![cols, per_cta],
        Grid::Queries { tile, heads, cluster } => vec![tile, heads, cluster],
        Grid::Splits(of) => vec![of.heads, of.kv_heads, of.head, of.page],
        Grid::Tiles64 { heads, parts } => vec![heads, parts],
        Grid::Fixed([x, y]) => vec![x, y],
        Grid::Tiles { channels, tokens } => vec![channels, tokens],
        Grid::Persistent { channels, tokens, cluster, ctas } => vec![channels, tokens, cluster, ctas],
    }
}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Between, Extent, MapShape, Table};
    use super::*;
    use crate::cuda::{Cta, DecodeAttention};
    use crate::{Swizzle, TensorMapShape};

    const NONE: DecodeAttention = DecodeAttention { heads: 3, kv_heads: 2, head: 64, page: 64 };

    fn shape() -> MapShape {
        let swizzle = Swizzle::None;
        let (sizes, strides, tile) = (vec![16, 2], vec![16], vec![16, 1]);
        MapShape::of(Extent::Once, |_| TensorMapShape {
            element: 1,
            sizes: sizes.clone(),
            strides: strides.clone(),
            tile: tile.clone(),
            swizzle,
        })
    }

    fn program(change: impl FnOnce(&mut Launch)) -> Program {
        let mut launch = Launch {
            function: "gather".into(),
            symbol: "gather_0".into(),
            result: Some(0),
            when: When::default(),
            overlaps: false,
            rows: Count::Tokens,
            cta: Cta::of(32),
            grid: Grid::Rows,
            arguments: vec![Argument::Buffer { buffer: 0, part: 0, offset: 4 }, Argument::Table(Table::Runs)],
        };
        change(&mut launch);
        Program { launches: vec![launch], ..Program::default() }
    }

    #[test]
    fn a_first_launch_that_overlaps_is_refused() {
        let found = program(|l| l.overlaps = true).verify(&[vec![8]]).unwrap_err();
        assert!(found.contains("begins every step"), "{found}");
        let mut two = program(|_| ());
        two.launches.push(Launch { overlaps: true, ..two.launches[0].clone() });
        assert_eq!(two.verify(&[vec![8]]), Ok(()));
        two.launches[0].when.longest = Some(Between(2, None));
        assert!(two.verify(&[vec![8]]).unwrap_err().contains("begins every step"));
    }

    #[test]
    fn what_does_not_exist_is_refused_with_the_reason() {
        let verify = |change: fn(&mut Launch)| program(change).verify(&[vec![8]]);
        assert_eq!(verify(|_| ()), Ok(()));
        let refused = |change, reason: &str| {
            let found = verify(change).unwrap_err();
            assert!(found.starts_with("`gather_0`: ") && found.contains(reason), "{found}");
        };
        refused(|l| l.function = "../x".into(), "no function");
        refused(|l| l.cta.threads = 0, "no CTAs");
        refused(|l| l.grid = Grid::Elements { cols: 8, per_cta: 0 }, "no grid");
        refused(|l| l.grid = Grid::Splits(NONE), "3 query heads over 2");
        refused(|l| l.result = Some(1), "no buffer");
        refused(|l| l.arguments[0] = Argument::Buffer { buffer: 0, part: 0, offset: 8 }, "byte 8");
        refused(|l| l.arguments[0] = Argument::Buffer { buffer: 0, part: 1, offset: 0 }, "part 1");
        refused(|l| l.arguments[0] = Argument::Region { region: 0, by_key: 0 }, "region 0");
        refused(|l| l.arguments[0] = Argument::Elements(1 << 31), "2147483648 elements");
        refused(
            |l| l.arguments[0] = Argument::Map { of: Box::new(Argument::Nothing), shape: shape() },
            "no address",
        );
    }
}
