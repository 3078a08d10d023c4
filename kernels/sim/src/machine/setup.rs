//! CTAs and warps of a cluster before their first instruction.

use super::Cta;
use super::barriers::NamedBarrier;
use super::warp::Warp;
use crate::launch::World;
use crate::program::{Constant, LANES, LaneMask, Row, Special};
use crate::shared::{RESERVED, Shared};

/// Addresses of local memory start here, in the local and the generic form.
pub(super) const LOCAL_WINDOW: u64 = 1 << 61;
/// Addresses of parameters start here.
pub(super) const PARAMETER_WINDOW: u64 = 1 << 60;
/// Barriers of a CTA.
const BARRIERS: usize = 16;

/// The cluster of this number in the grid; `spare` are registers that are used again.
pub(super) fn cluster(world: &World, number: u64, spare: &mut Vec<Vec<Row>>) -> (Vec<Cta>, Vec<Warp>) {
    let [cx, cy, cz] = world.shape.cluster;
    let ranks = (cx * cy * cz) as usize;
    let per_cta = world.shape.threads.div_ceil(LANES as u32) as usize;
    let all = ranks * per_cta;
    let cluster_id = coordinates(number, world.shape.grid);
    let (mut ctas, mut warps) = (vec![], vec![]);
    for rank in 0..ranks {
        let within = coordinates(rank as u64, world.shape.cluster);
        let id = std::array::from_fn(|i| cluster_id[i] * world.shape.cluster[i] + within[i]);
        let barriers = (0..BARRIERS).map(|_| NamedBarrier::new(all)).collect();
        let shared = Shared::new(world.shape.shared);
        ctas.push(Cta { id, shared, barriers, first_warp: rank * per_cta, warps: per_cta, finished: false });
        for index in 0..per_cta as u32 {
            let place = Place { world, cluster_id, within, rank: rank as u32, cta: id, warp: index };
            let agent = (rank * per_cta) as u16 + index as u16;
            let rows = rows(&place, spare.pop().unwrap_or_default());
            let mut warp = Warp::new(rank, index, agent, all, rows, world.kernel.local_bytes);
            let threads = (world.shape.threads - index * LANES as u32).min(LANES as u32);
            warp.start(u32::MAX >> (LANES as u32 - threads));
            warps.push(warp);
        }
    }
    (ctas, warps)
}

fn coordinates(number: u64, dims: [u32; 3]) -> [u32; 3] {
    let [x, y] = [u64::from(dims[0]), u64::from(dims[1])];
    [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32]
}

struct Place<'a> {
    world: &'a World<'a>,
    cluster_id: [u32; 3],
    within: [u32; 3],
    rank: u32,
    cta: [u32; 3],
    warp: u32,
}

fn rows(place: &Place, mut rows: Vec<Row>) -> Vec<Row> {
    let kernel = place.world.kernel;
    rows.clear();
    rows.resize(kernel.rows as usize, [0; LANES]);
    for (row, constant) in &kernel.constants {
        rows[*row as usize] = std::array::from_fn(|lane| value(place, *constant, lane as u32));
    }
    rows
}

fn value(place: &Place, constant: Constant, lane: u32) -> u64 {
    let window = u64::from(place.rank) << 24;
    match constant {
        Constant::Bits(bits) => bits,
        Constant::Special(special) => special_value(place, special, lane).into(),
        Constant::Shared(at) => window + RESERVED as u64 + at,
        Constant::Dynamic(at) => window + place.world.shape.dynamic as u64 + at,
        Constant::Parameter(at) => PARAMETER_WINDOW + at,
        Constant::Local(at) => LOCAL_WINDOW + at,
        Constant::Variable(index, at) => place.world.variables[index].wrapping_add(at),
    }
}

fn special_value(place: &Place, special: Special, lane: u32) -> u32 {
    let (launch, shape) = (place.world.launch, place.world.shape);
    match special {
        Special::Tid(i) => coordinates(u64::from(place.warp * LANES as u32 + lane), launch.block)[i],
        Special::Ntid(i) => launch.block[i],
        Special::Ctaid(i) => place.cta[i],
        Special::Nctaid(i) => launch.grid[i],
        Special::ClusterId(i) => place.cluster_id[i],
        Special::ClusterCount(i) => shape.grid[i],
        Special::ClusterCtaid(i) => place.within[i],
        Special::ClusterNctaid(i) => shape.cluster[i],
        Special::ClusterRank => place.rank,
        Special::ClusterSize => shape.cluster.iter().product(),
        Special::LaneId => lane,
        Special::WarpId => place.warp,
        Special::WarpCount => shape.threads.div_ceil(LANES as u32),
        Special::LaneMask(mask) => lane_mask(mask, lane),
        Special::DynamicSharedBytes => launch.dynamic_shared as u32,
        Special::TotalSharedBytes => (shape.shared - RESERVED) as u32,
        Special::SmId | Special::Zero => 0,
    }
}

fn lane_mask(mask: LaneMask, lane: u32) -> u32 {
    let equal = 1u32 << lane;
    match mask {
        LaneMask::Equal => equal,
        LaneMask::Less => equal - 1,
        LaneMask::LessEqual => equal | (equal - 1),
        LaneMask::Greater => !(equal | (equal - 1)),
        LaneMask::GreaterEqual => !(equal - 1),
    }
}
