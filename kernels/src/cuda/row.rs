//! Kernels that hold a row in the registers of one CTA: norms and quantizations per row.

use fireq_ir::DType;

use super::elementwise::swiglu;
use super::params;
use super::unit::{Cta, Grid, Parts, Unit, Unsupported, access, chunk, float_name, text};

/// How a row lies in a CTA's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTile {
    /// Numbers of a row.
    pub cols: usize,
    /// Threads of the CTA.
    pub threads: usize,
    /// Neighbouring numbers that a thread loads at once.
    pub chunk: usize,
}

/// Numbers that a thread holds where rows are long enough: enough loads in flight to cover the latency of memory.
const PER_THREAD: usize = 16;
/// The most that a thread can hold: half of the registers that 1024 threads leave each other are for the rest.
const MOST_PER_THREAD: usize = 32;
const MOST_THREADS: usize = 1024;
const WARP: usize = 32;

impl RowTile {
    /// The tile of a row of `cols` numbers that is written in E4M3: sixteen codes are one store. Codes of rows lie
    /// [`pitch`](crate::layout::pitch) apart.
    pub fn quantized(cols: usize) -> Result<Self, Unsupported> {
        Self::of(cols, chunk(cols, &[16, 4, 2]))
    }

    /// The tile of a row that stays f32: four numbers are one store.
    pub fn float(cols: usize) -> Result<Self, Unsupported> {
        Self::of(cols, chunk(cols, &[4, 2]))
    }

    fn of(cols: usize, chunk: usize) -> Result<Self, Unsupported> {
        let chunks = cols / chunk;
        let wanted = (PER_THREAD / chunk).min(chunks / WARP).max(1);
        let per_thread = wanted.max(chunks.div_ceil(MOST_THREADS));
        if cols == 0 || per_thread * chunk > MOST_PER_THREAD {
            let most = MOST_THREADS * MOST_PER_THREAD;
            return Err(Unsupported(format!(
                "rows of {cols} do not fit into registers; {most} do, in whole chunks"
            )));
        }
        let threads = chunks.div_ceil(per_thread).next_multiple_of(WARP);
        Ok(RowTile { cols, threads, chunk })
    }

    fn using(self) -> String {
        format!("using Row = RowTile<{}, {}, {}>;", self.cols, self.threads, self.chunk)
    }

    fn config(self) -> String {
        let per_thread = (self.cols / self.chunk).div_ceil(self.threads);
        format!("{} threads for a row, {} numbers each", self.threads, per_thread * self.chunk)
    }

    fn reason(self) -> String {
        format!("bound by memory: the row stays in registers and is read once, in {}", access(4 * self.chunk))
    }

    fn unit(self, name: String, text: String) -> Unit {
        Unit {
            shape: format!("rows of {}", self.cols),
            config: self.config(),
            reason: self.reason(),
            cta: Cta::of(self.threads),
            grid: Grid::Rows,
            name,
            text,
        }
    }
}

/// `rms_norm` over runs of `cols` channels, weights in `weight`.
pub fn rms_norm(cols: usize, weight: DType) -> Result<Unit, Unsupported> {
    let tile = RowTile::float(cols)?;
    let name = format!("rms_norm_{weight}_{cols}");
    let arguments = format!("Row, {}", float_name(weight)?);
    let text = text::<params::RmsNorm>(&Parts {
        name: &name,
        kernel: "rms_norm",
        names: &[tile.using()],
        arguments: &arguments,
        cta: Cta::of(tile.threads),
    });
    Ok(tile.unit(name, text))
}

/// `norm_quantize` of rows of `cols` channels, weights in `weight`.
pub fn norm_quantize(cols: usize, weight: DType) -> Result<Unit, Unsupported> {
    let tile = RowTile::quantized(cols)?;
    let name = format!("norm_quantize_{weight}_{cols}");
    let arguments = format!("Row, {}", float_name(weight)?);
    let text = text::<params::NormQuantize>(&Parts {
        name: &name,
        kernel: "norm_quantize",
        names: &[tile.using()],
        arguments: &arguments,
        cta: Cta::of(tile.threads),
    });
    Ok(tile.unit(name, text))
}

/// `quantize` of rows of `cols` channels to E4M3 under one f32 scale.
pub fn quantize(cols: usize) -> Result<Unit, Unsupported> {
    let tile = RowTile::quantized(cols)?;
    let name = format!("quantize_{cols}");
    let text = text::<params::Quantize>(&Parts {
        name: &name,
        kernel: "quantize",
        names: &[tile.using()],
        arguments: "Row",
        cta: Cta::of(tile.threads),
    });
    Ok(tile.unit(name, text))
}

/// `silu(gate)·up`, quantized, where gate and up are the halves of rows of `2·cols`.
pub fn swiglu_quantize(cols: usize) -> Result<Unit, Unsupported> {
    let tile = RowTile::quantized(cols)?;
    let name = format!("swiglu_quantize_{cols}");
    let body = swiglu()?;
    let text = text::<params::SwigluQuantize>(&Parts {
        name: &name,
        kernel: "swiglu_quantize",
        names: &[tile.using(), body],
        arguments: "Row, Swiglu",
        cta: Cta::of(tile.threads),
    });
    Ok(tile.unit(name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_whole_by_as_few_threads_as_keep_loads_in_flight() {
        let tile = |cols| RowTile::quantized(cols).map(|t| (t.threads, t.chunk));
        assert_eq!(tile(4096), Ok((256, 16)));
        assert_eq!(tile(14336), Ok((896, 16)));
        assert_eq!(tile(28672), Ok((896, 16)));
        assert_eq!(tile(100), Ok((32, 4)));
        assert_eq!(tile(37), Ok((64, 1)));
        assert!(tile(65536 * 2).is_err() && tile(0).is_err());
        let float = |cols| RowTile::float(cols).map(|t| (t.threads, t.chunk));
        assert_eq!(float(128), Ok((32, 4)));
        assert_eq!(float(4096), Ok((256, 4)));
    }

    #[test]
    fn every_column_has_a_thread() {
        for cols in (1..3000).chain([4096, 8192, 11008, 14336, 16384, 28672]) {
            for tile in [RowTile::quantized(cols), RowTile::float(cols)].into_iter().flatten() {
                let per_thread = (cols / tile.chunk).div_ceil(tile.threads);
                assert!(
                    tile.threads * per_thread * tile.chunk >= cols && tile.threads <= MOST_THREADS,
                    "{tile:?}"
                );
            }
        }
    }
}
