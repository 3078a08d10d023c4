//! Global memory: named allocations with bounds and a mark on every byte that was written.

use crate::fault::FaultKind;
use crate::in_flight::{InFlight, Touch};

/// Global memory of a device.
#[derive(Debug, Default)]
pub struct Memory {
    allocations: Vec<Allocation>,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
struct Allocation {
    name: String,
    data: Vec<u8>,
    written: Written,
    read_only: bool,
    freed: bool,
}

/// Every allocation has an address range of its own of this many bits, so that no overrun reaches another one.
const RANGE_BITS: u32 = 36;

/// The first range: addresses look like no pair of sizes that parameters hold, so that whoever sees the bytes of a launch
/// can tell which are addresses.
const FIRST: u64 = 0x5c_ed00;

impl Memory {
    /// A memory without allocations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates bytes that nothing has written yet, and returns their address, a multiple of 256. The name appears
    /// in faults.
    pub fn alloc(&mut self, name: impl Into<String>, bytes: usize) -> u64 {
        let (data, written) = (vec![0; bytes], Written::new(bytes));
        self.allocations.push(Allocation {
            name: name.into(),
            data,
            written,
            read_only: false,
            freed: false,
        });
        (FIRST + self.allocations.len() as u64 - 1) << RANGE_BITS
    }

    /// Allocates and writes.
    pub fn alloc_with(&mut self, name: impl Into<String>, bytes: &[u8]) -> u64 {
        let address = self.alloc(name, bytes.len());
        let allocation = self.allocations.last_mut().expect("just allocated");
        allocation.data.copy_from_slice(bytes);
        allocation.written.set(0, bytes.len());
        address
    }

    /// Gives an allocation back, whose address this is; its addresses are not used again.
    pub fn free(&mut self, address: u64) -> Result<(), FaultKind> {
        let (index, at) = self.find(address, 0, "free")?;
        let allocation = &mut self.allocations[index];
        if at != 0 || allocation.freed {
            let nearest = format!("byte {at} of `{}`", allocation.name);
            return Err(FaultKind::OutOfBounds { what: "free", address, bytes: 0, nearest });
        }
        let name = format!("{}, which was freed", allocation.name);
        *allocation =
            Allocation { name, data: vec![], written: Written::new(0), read_only: false, freed: true };
        Ok(())
    }

    /// What earlier launches may still use while the next ones begin; `None` where they have ended, as with plain launches.
    pub fn set_in_flight(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight;
    }

    /// Whether launches may begin before earlier ones have ended.
    pub(crate) fn overlaps(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a kernel's access is ordered behind earlier launches.
    pub(crate) fn check_order(&self, touch: &Touch) -> Result<(), FaultKind> {
        self.in_flight.as_ref().map_or(Ok(()), |in_flight| in_flight.check(touch))
    }

    /// Whether a kernel's load of constant memory has it.
    pub(crate) fn check_constant(&self, touch: &Touch) -> Result<(), FaultKind> {
        self.in_flight.as_ref().map_or(Ok(()), |in_flight| in_flight.check_constant(touch))
    }

    /// Writes from the host; a fault where the range is not within one allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), FaultKind> {
        let (allocation, at) = self.find(address, bytes.len(), "write")?;
        let allocation = &mut self.allocations[allocation];
        allocation.data[at..at + bytes.len()].copy_from_slice(bytes);
        allocation.written.set(at, bytes.len());
        Ok(())
    }

    /// Reads on the host; a fault where the range is not within one allocation or a byte was never written.
    pub fn read(&self, address: u64, bytes: usize) -> Result<&[u8], FaultKind> {
        let (index, at) = self.find(address, bytes, "read")?;
        let allocation = &self.allocations[index];
        match allocation.written.first_missing(at, bytes) {
            None => Ok(&allocation.data[at..at + bytes]),
            Some(missing) => Err(FaultKind::Uninitialised {
                what: format!("global memory `{}`, byte {missing}", allocation.name),
                address: address + (missing - at) as u64,
            }),
        }
    }

    /// Writes from a kernel, which may not touch constants.
    pub(crate) fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), FaultKind> {
        let (index, _) = self.find(address, bytes.len(), "write")?;
        if self.allocations[index].read_only {
            return Err(FaultKind::ReadOnly(format!("memory `{}`", self.allocations[index].name)));
        }
        self.write(address, bytes)
    }

    /// Whether the range lies within one allocation.
    pub(crate) fn check(&self, address: u64, bytes: usize, what: &'static str) -> Result<(), FaultKind> {
        self.find(address, bytes, what).map(|_| ())
    }

    pub(crate) fn allocations(&self) -> usize {
        self.allocations.len()
    }

    pub(crate) fn protect_last(&mut self) {
        if let Some(last) = self.allocations.last_mut() {
            last.read_only = true;
        }
    }

    /// Drops the newest allocations until `count` are left.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.allocations.truncate(count);
    }

    fn find(&self, address: u64, bytes: usize, what: &'static str) -> Result<(usize, usize), FaultKind> {
        let index = (address >> RANGE_BITS).wrapping_sub(FIRST) as usize;
        let at = (address & ((1 << RANGE_BITS) - 1)) as usize;
        match self.allocations.get(index) {
            Some(a) if at + bytes <= a.data.len() => Ok((index, at)),
            found => {
                let nearest = found.map_or("no allocation is there".into(), |a| {
                    format!("byte {at} of `{}`, which has {}", a.name, a.data.len())
                });
                Err(FaultKind::OutOfBounds { what, address, bytes: bytes as u64, nearest })
            }
        }
    }
}

/// One bit per byte.
#[derive(Debug)]
pub(crate) struct Written(Vec<u64>);

impl Written {
    pub fn new(bytes: usize) -> Self {
        Self(vec![0; bytes.div_ceil(64)])
    }

    pub fn set(&mut self, at: usize, bytes: usize) {
        for (word, mask) in words(at, bytes) {
            self.0[word] |= mask;
        }
    }

    pub fn first_missing(&self, at: usize, bytes: usize) -> Option<usize> {
        words(at, bytes).find_map(|(word, mask)| {
            let missing = mask & !self.0[word];
            (missing != 0).then(|| word * 64 + missing.trailing_zeros() as usize)
        })
    }
}

/// Words of the bit set that a range touches, with the bits of the range.
fn words(at: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = at + bytes;
    (at / 64..end.div_ceil(64)).map(move |word| {
        let low = at.saturating_sub(word * 64).min(63);
        let high = (end - word * 64).min(64);
        (word, (u64::MAX >> (64 - high)) & (u64::MAX << low))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_need_writes_and_bounds() {
        let mut memory = Memory::new();
        let address = memory.alloc("x", 200);
        memory.write(address + 60, &[7; 10]).unwrap();
        assert_eq!(memory.read(address + 60, 10).unwrap(), [7; 10]);
        let missing = memory.read(address + 60, 11).unwrap_err();
        assert!(
            matches!(missing, FaultKind::Uninitialised { address: a, .. } if a == address + 70),
            "{missing}"
        );
        let outside = memory.read(address + 196, 8).unwrap_err();
        assert_eq!(
            outside.to_string(),
            format!(
                "read of 8 bytes at {:#x} is out of bounds: byte 196 of `x`, which has 200",
                address + 196
            )
        );
        assert!(memory.read(0, 1).is_err());
    }
}
