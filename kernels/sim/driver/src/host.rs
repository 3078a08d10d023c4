//! Page-locked memory of the host.

use std::collections::BTreeMap;

use crate::device::{Device, Status};

/// Allocations by their addresses.
#[derive(Default)]
pub struct Locked(BTreeMap<usize, Box<[u8]>>);

impl Device {
    pub fn lock(&mut self, bytes: usize) -> Result<usize, Status> {
        self.check()?;
        self.outside_capture()?;
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        let memory = vec![0u8; bytes].into_boxed_slice();
        let address = memory.as_ptr() as usize;
        self.host.0.insert(address, memory);
        Ok(address)
    }

    pub fn unlock(&mut self, address: usize) -> Result<(), Status> {
        self.outside_capture()?;
        self.host.0.remove(&address).map(drop).ok_or(Status::InvalidValue)
    }

    /// Bytes of such memory; an error where they are not within an allocation.
    pub fn locked(&mut self, address: usize, bytes: usize) -> Result<&mut [u8], Status> {
        let found = self.host.0.range_mut(..=address).next_back();
        let (start, memory) = found.ok_or(Status::InvalidValue)?;
        let at = address - start;
        memory.get_mut(at..at.saturating_add(bytes)).ok_or(Status::InvalidValue)
    }
}
