//! What a kernel takes of a multiprocessor, as its cubin says it.

use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{Endianness, Object, ObjectSection, ObjectSymbol};
use thiserror::Error;

/// What a kernel takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a CTA that are known before a launch.
    pub shared: u32,
    /// Bytes of local memory of a thread: its stack, which is where registers spill to.
    pub local: u32,
}

/// A cubin that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a cubin with kernel `{kernel}`: {reason}")]
pub struct CubinError {
    /// The kernel that was looked for.
    pub kernel: String,
    /// What is wrong.
    pub reason: String,
}

/// Shared memory that the system keeps for itself in every CTA of this architecture.
const RESERVED_SHARED: u64 = 1024;

/// Formats of an attribute of `.nv.info`: only values with a size of their own take more than four bytes.
const SIZED: u8 = 4;
const REGISTERS: u8 = 0x2f;
const FRAME: u8 = 0x11;

/// Reads the resources of a kernel from the tables that the driver reads, too.
pub fn resources(cubin: &[u8], kernel: &str) -> Result<Resources, CubinError> {
    let fail = |reason: String| CubinError { kernel: kernel.into(), reason };
    let file = ElfFile::<FileHeader64<Endianness>>::parse(cubin).map_err(|e| fail(e.to_string()))?;
    let info = file.section_by_name(".nv.info").ok_or_else(|| fail("it has no .nv.info".into()))?;
    let info = info.data().map_err(|e| fail(e.to_string()))?;
    // Functions that the kernel calls have rows of their own: what a thread takes is the most of any.
    let known = |index: u32| file.symbols().any(|symbol| symbol.index().0 as u32 == index);
    let most = |attribute| {
        let rows = attributes(info).filter(|row| row.0 == attribute && known(row.1)).map(|row| row.2);
        rows.max()
    };
    let registers =
        most(REGISTERS).ok_or_else(|| fail("it does not say how many registers it takes".into()))?;
    if !file.symbols().any(|symbol| symbol.name() == Ok(kernel)) {
        return Err(fail("it has no such symbol".into()));
    }
    let shared = file.section_by_name(&format!(".nv.shared.{kernel}")).map_or(0, |section| section.size());
    let shared = shared.saturating_sub(RESERVED_SHARED) as u32;
    Ok(Resources { registers, shared, local: most(FRAME).unwrap_or(0) })
}

/// The attributes of `.nv.info` that speak of a symbol: attribute, symbol, value.
fn attributes(mut info: &[u8]) -> impl Iterator<Item = (u8, u32, u32)> {
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    std::iter::from_fn(move || {
        let (head, rest) = info.split_first_chunk::<4>()?;
        let size = if head[0] == SIZED { usize::from(u16::from_le_bytes([head[2], head[3]])) } else { 0 };
        let (value, rest) = rest.split_at_checked(size)?;
        info = rest;
        Some((head[1], value))
    })
    .filter(|(_, value)| value.len() == 8)
    .map(move |(attribute, value)| (attribute, word(value), word(&value[4..])))
}
