//! Asynchronous copies: tensor maps with swizzles and edges, bulk copies, phases of barriers, clusters.

use fireq_sim::{Launch, Params, Swizzle, TensorMap};

use super::{Inputs, bytes};
use crate::device::{Device, UNTOUCHED, device};

const TEXT: &str = include_str!("tma.cu");
/// Rows of a tile.
const ROWS: usize = 24;
/// Rows and bytes of a row of the tensor.
const TENSOR: [usize; 2] = [40, 208];

fn launch(kernel: &str, threads: u32, params: Vec<u8>) -> Launch {
    Launch {
        kernel: kernel.into(),
        grid: [1; 3],
        block: [threads, 1, 1],
        cluster: [1; 3],
        dynamic_shared: 0,
        params,
    }
}

/// Swizzles with the bytes of a row of their tiles.
pub const SWIZZLES: [(Swizzle, usize); 4] =
    [(Swizzle::None, 48), (Swizzle::B32, 32), (Swizzle::B64, 64), (Swizzle::B128, 128)];

/// Where byte `column` of a row of a tile lies. Chunks of 16 bytes change places within a row: by the number of the row,
/// of the pair, or of four rows, so that eight neighbouring chunks of 16 bytes never share banks.
pub fn swizzled(swizzle: Swizzle, width: usize, row: usize, column: usize) -> usize {
    let turn = match swizzle {
        Swizzle::None => 0,
        Swizzle::B32 => row / 4 % 2,
        Swizzle::B64 => row / 2 % 4,
        Swizzle::B128 => row % 8,
    };
    row * width + ((column / 16) ^ turn) * 16 + column % 16
}

fn map(address: u64, width: usize, swizzle: Swizzle) -> TensorMap {
    TensorMap {
        address,
        rank: 2,
        element_bytes: 1,
        dims: [TENSOR[1] as u64, TENSOR[0] as u64, 0, 0, 0],
        strides: [TENSOR[1] as u64, 0, 0, 0],
        block: [width as u32, ROWS as u32, 0, 0, 0],
        swizzle,
    }
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    bytes(&Inputs::random(seed, count.div_ceil(8), &[]).a)[..count].to_vec()
}

/// Corners of tiles: inside, past each end, and wholly outside.
const CORNERS: [(i32, i32); 5] = [(16, 3), (176, 30), (-16, -5), (-7, 25), (400, 0)];

fn corner(gpu: &mut Device, kernel: &str, map: &TensorMap, [out, input]: [u64; 2], (x, y): (i32, i32)) {
    let bytes = map.block[0] * map.block[1];
    let params = Params::new().bytes(64, &map.encode().unwrap()).u64(out).u64(input);
    let params = params.u32(x as u32).u32(y as u32).u32(bytes).bytes(64, &[]).build();
    gpu.launch_text("conformance_tma", TEXT, &launch(kernel, 128, params));
}

/// Byte of the tensor, where that is in it.
fn inside((x, y): (i32, i32), row: usize, column: usize) -> Option<usize> {
    let (row, column) = (y + row as i32, x + column as i32);
    let within = (0..TENSOR[0] as i32).contains(&row) && (0..TENSOR[1] as i32).contains(&column);
    within.then(|| row as usize * TENSOR[1] + column as usize)
}

#[test]
fn tiles_are_loaded_with_swizzles_and_zeros_outside() {
    let Some(mut gpu) = device() else { return };
    let tensor = noise(50, TENSOR[0] * TENSOR[1]);
    let address = gpu.put("tensor", &tensor);
    for (swizzle, width) in SWIZZLES {
        for at in CORNERS {
            let out = gpu.space("out", ROWS * width);
            corner(&mut gpu, "load_tile", &map(address, width, swizzle), [out, address], at);
            let found = gpu.bytes(out, ROWS * width);
            for (row, column) in (0..ROWS * width).map(|i| (i / width, i % width)) {
                let want = inside(at, row, column).map_or(0, |i| tensor[i]);
                let found = found[swizzled(swizzle, width, row, column)];
                assert_eq!(found, want, "{swizzle:?} at {at:?}: row {row}, byte {column}");
            }
        }
    }
}

#[test]
fn tiles_are_stored_without_what_is_outside() {
    let Some(mut gpu) = device() else { return };
    for (swizzle, width) in SWIZZLES {
        let tile = noise(51, ROWS * width);
        let input = gpu.put("tile", &tile);
        for at in CORNERS {
            let tensor = gpu.space("tensor", TENSOR[0] * TENSOR[1]);
            corner(&mut gpu, "store_tile", &map(tensor, width, swizzle), [tensor, input], at);
            let mut want = vec![UNTOUCHED; TENSOR[0] * TENSOR[1]];
            for (row, column) in (0..ROWS * width).map(|i| (i / width, i % width)) {
                if let Some(i) = inside(at, row, column) {
                    want[i] = tile[swizzled(swizzle, width, row, column)];
                }
            }
            let found = gpu.bytes(tensor, want.len());
            let wrong = found.iter().zip(&want).position(|(found, want)| found != want);
            assert_eq!(wrong, None, "{swizzle:?} at {at:?}");
        }
    }
}

#[test]
fn phases_of_a_barrier_alternate() {
    let Some(mut gpu) = device() else { return };
    let data = noise(52, 4096);
    let (input, out) = (gpu.put("in", &data), gpu.space("out", 4096 + 64));
    gpu.launch_text(
        "conformance_tma",
        TEXT,
        &launch("phases", 32, Params::new().u64(input).u64(out).build()),
    );
    assert_eq!(gpu.bytes(out, 4096), data);
    // The phase before the first one has parity 1; a test of a parity is true when the last phase that ended has it.
    let even = [0u32, 1, 1, 0];
    let odd = [1u32, 0, 0, 1];
    let want: Vec<u8> = [even, odd, even, odd].concat().iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(gpu.bytes(out + 4096, 64), want);
}

#[test]
fn clusters_share_a_multicast_and_their_memory() {
    let Some(mut gpu) = device() else { return };
    let data: Vec<u32> = Inputs::random(53, 256, &[]).a[..128].iter().map(|x| *x as u32).collect();
    let words = |x: &[u32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (input, out) = (gpu.put("in", &words(&data)), gpu.space("out", 4 * 256));
    let params = Params::new().u64(input).u64(out).build();
    let launch = Launch { grid: [4, 1, 1], cluster: [2, 1, 1], ..launch("multicast", 64, params) };
    gpu.launch_text("conformance_tma", TEXT, &launch);
    let want = |i: usize| data[i / 128 * 64 + 63 - i % 64].wrapping_add(((i / 64 % 2) ^ 1) as u32);
    assert_eq!(gpu.bytes(out, 4 * 256), words(&(0..256).map(want).collect::<Vec<_>>()));
}
