//! Loads, stores and atomics of every state space.

use super::Machine;
use super::lane::Lane;
use super::setup::{LOCAL_WINDOW, PARAMETER_WINDOW};
use super::warp::{Warp, lanes};
use crate::decode::SHARED_WINDOW;
use crate::fault::{AtLane, FaultKind, Trouble, undefined};
use crate::op::{Access, Address, Space, Update};
use crate::program::{LANES, Reg, Row};
use crate::shared::Agent;

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Global(u64),
    Shared { cta: usize, offset: u64 },
    Local(u64),
    Parameter(u64),
}

impl Machine<'_> {
    pub(super) fn load(
        &mut self,
        w: usize,
        at: &Access,
        d: &[Reg; 4],
        sign: Option<(u32, u32)>,
        constant: bool,
        mask: u32,
    ) -> Result<(), Trouble> {
        let bytes = (at.width * at.count) as usize;
        let addresses = self.addresses(w, at);
        self.count_access(at.space, &addresses, bytes, mask);
        for lane in lanes(mask) {
            let mut buffer = [0; 16];
            let target = self.locate(w, at.space, addresses[lane]).at_lane(lane)?;
            aligned(addresses[lane], bytes as u64, "load").at_lane(lane)?;
            let mut access = self.lane(w, "load");
            access.constant = constant;
            access.fetch(target, lane, &mut buffer[..bytes]).at_lane(lane)?;
            for (i, row) in d[..at.count as usize].iter().enumerate() {
                let raw = word(&buffer[i * at.width as usize..], at.width as usize);
                self.warps[w].rows[*row as usize][lane] =
                    sign.map_or(raw, |(from, to)| extend(raw, from, to));
            }
        }
        Ok(())
    }

    pub(super) fn store(&mut self, w: usize, at: &Access, s: &[Reg; 4], mask: u32) -> Result<(), Trouble> {
        let bytes = (at.width * at.count) as usize;
        let addresses = self.addresses(w, at);
        self.count_access(at.space, &addresses, bytes, mask);
        for lane in lanes(mask) {
            let mut buffer = [0; 16];
            for (i, row) in s[..at.count as usize].iter().enumerate() {
                let value = self.warps[w].rows[*row as usize][lane].to_le_bytes();
                buffer[i * at.width as usize..][..at.width as usize]
                    .copy_from_slice(&value[..at.width as usize]);
            }
            let target = self.locate(w, at.space, addresses[lane]).at_lane(lane)?;
            aligned(addresses[lane], bytes as u64, "store").at_lane(lane)?;
            self.lane(w, "store").put(target, lane, &buffer[..bytes]).at_lane(lane)?;
        }
        self.progress += 1;
        Ok(())
    }

    /// Lanes go one after the other. Atomics do not race with each other, so they leave no marks in shared memory
    /// beyond those of a write that everyone has seen.
    pub(super) fn atomic(
        &mut self,
        w: usize,
        at: &Access,
        f: Update,
        d: Option<Reg>,
        s: [Reg; 2],
        mask: u32,
    ) -> Result<(), Trouble> {
        let bytes = at.width as usize;
        let addresses = self.addresses(w, at);
        for lane in lanes(mask) {
            let target = self.locate(w, at.space, addresses[lane]).at_lane(lane)?;
            aligned(addresses[lane], bytes as u64, "atomic").at_lane(lane)?;
            let [b, c] = s.map(|row| truncate(self.warps[w].rows[row as usize][lane], bytes));
            let mut buffer = [0; 8];
            let mut access = self.lane(w, "atomic");
            access.fetch_atomic(target, lane, &mut buffer[..bytes]).at_lane(lane)?;
            let old = u64::from_le_bytes(buffer);
            let new = f(old, b, c).to_le_bytes();
            access.put_atomic(target, lane, &new[..bytes]).at_lane(lane)?;
            if let Some(row) = d {
                self.warps[w].rows[row as usize][lane] = old;
            }
        }
        self.progress += 1;
        Ok(())
    }

    fn addresses(&self, w: usize, at: &Access) -> Row {
        self.warps[w].rows[at.address as usize].map(|a| a.wrapping_add(at.offset as u64))
    }

    /// The address of an object, on the first lane of the mask.
    pub(super) fn address(&self, w: usize, at: &Address, lane: usize) -> u64 {
        self.warps[w].rows[at.row as usize][lane].wrapping_add(at.offset as u64)
    }

    pub(super) fn locate(&self, w: usize, space: Space, address: u64) -> Result<Target, FaultKind> {
        let warp = &self.warps[w];
        Ok(match space {
            Space::Shared => {
                let address = address as u32;
                if (address >> 24) as usize != warp.cta {
                    let nearest = "the address lies in the shared memory of another CTA".to_owned();
                    return Err(FaultKind::OutOfBounds {
                        what: "access",
                        address: address.into(),
                        bytes: 0,
                        nearest,
                    });
                }
                Target::Shared { cta: warp.cta, offset: (address & 0xff_ffff).into() }
            }
            Space::Cluster => self.locate_cluster(address as u32)?,
            Space::Local => Target::Local(address.wrapping_sub(LOCAL_WINDOW)),
            Space::Parameter => Target::Parameter(address.wrapping_sub(PARAMETER_WINDOW)),
            Space::Generic if address >= SHARED_WINDOW => self.locate_cluster(address as u32)?,
            Space::Generic if address >= LOCAL_WINDOW => Target::Local(address - LOCAL_WINDOW),
            Space::Generic if address >= PARAMETER_WINDOW => Target::Parameter(address - PARAMETER_WINDOW),
            Space::Generic | Space::Global | Space::Constant => Target::Global(address),
        })
    }

    fn locate_cluster(&self, address: u32) -> Result<Target, FaultKind> {
        let (cta, offset) = ((address >> 24) as usize, u64::from(address & 0xff_ffff));
        match self.ctas.get(cta) {
            Some(found) if !found.finished => Ok(Target::Shared { cta, offset }),
            Some(_) => Err(undefined("access to the shared memory of a CTA that has ended")),
            None => Err(undefined(format!("shared memory of CTA {cta}, which the cluster does not have"))),
        }
    }

    pub(super) fn lane(&mut self, w: usize, access: &'static str) -> Lane<'_> {
        let warp = &mut self.warps[w];
        let stamp = warp.stamp();
        let Warp { knowledge, local, local_written, waited, .. } = warp;
        Lane {
            memory: &mut self.memory,
            ctas: &mut self.ctas,
            parameters: &self.world.launch.params,
            stats: &mut self.stats,
            agent: Agent { stamp, knowledge, asynchronous: false, access },
            local,
            local_written,
            waited: *waited,
            constant: false,
        }
    }

    /// Counts sectors of global memory and conflicts of shared memory.
    fn count_access(&mut self, space: Space, addresses: &Row, bytes: usize, mask: u32) {
        let first = addresses[mask.trailing_zeros() as usize];
        let shared = matches!(space, Space::Shared | Space::Cluster) || first >= SHARED_WINDOW;
        if shared {
            self.stats.bank_conflicts += conflicts(addresses, bytes, mask);
        } else if matches!(space, Space::Global | Space::Generic) && first < PARAMETER_WINDOW {
            let mut sectors = [0; LANES];
            let count = mask.count_ones() as usize;
            lanes(mask).zip(&mut sectors).for_each(|(lane, sector)| *sector = addresses[lane] >> 5);
            sectors[..count].sort_unstable();
            let distinct = 1 + sectors[..count].windows(2).filter(|p| p[0] != p[1]).count();
            self.stats.sectors += distinct as u64;
            self.stats.sectors_needed += ((count * bytes).div_ceil(32)).min(distinct) as u64;
        }
    }
}

pub(super) fn aligned(address: u64, align: u64, what: &'static str) -> Result<(), FaultKind> {
    if address.is_multiple_of(align) { Ok(()) } else { Err(FaultKind::Misaligned { what, address, align }) }
}

fn word(bytes: &[u8], width: usize) -> u64 {
    let mut whole = [0; 8];
    whole[..width].copy_from_slice(&bytes[..width]);
    u64::from_le_bytes(whole)
}

fn truncate(value: u64, bytes: usize) -> u64 {
    value & (u64::MAX >> (64 - 8 * bytes))
}

/// Sign-extends from one width to another.
fn extend(raw: u64, from: u32, to: u32) -> u64 {
    let wide = ((raw << (64 - from)) as i64 >> (64 - from)) as u64;
    wide & (u64::MAX >> (64 - to.clamp(from, 64)))
}

/// Cycles beyond the first. Lanes with 4 bytes or fewer go together, with 8 bytes by half warps, with 16 by quarters.
fn conflicts(addresses: &Row, bytes: usize, mask: u32) -> u64 {
    let words = bytes.div_ceil(4);
    let group = LANES / words.next_power_of_two();
    (0..LANES)
        .step_by(group)
        .map(|first| {
            let mut touched = [u64::MAX; LANES];
            let mut count = 0;
            for lane in (first..first + group).filter(|lane| mask >> lane & 1 == 1) {
                for i in 0..words {
                    touched[count] = (addresses[lane] >> 2) + i as u64;
                    count += 1;
                }
            }
            touched[..count].sort_unstable();
            let mut banks = [0u8; 32];
            for i in (0..count).filter(|i| *i == 0 || touched[*i] != touched[*i - 1]) {
                banks[touched[i] as usize % 32] += 1;
            }
            u64::from(banks.iter().copied().max().unwrap_or(0).saturating_sub(1))
        })
        .sum()
}
