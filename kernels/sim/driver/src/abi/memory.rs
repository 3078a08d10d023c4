//! Memory of the device and of the host, and copies between them.

use std::ffi::{c_int, c_uint};

use super::{Handle, code, give};
use crate::device::{Device, Status};
use crate::stream::Work;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(to: *mut u64, bytes: usize) -> c_int {
    // SAFETY: the caller passes a place for the address.
    unsafe { give(to, Device::called("cuMemAlloc_v2").allocate(bytes)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    code(Device::the().free(address))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    let (now, all) = Device::the().room();
    // SAFETY: the caller passes places for the numbers.
    unsafe { give(free, Ok(now)) + give(total, Ok(all)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(to: *mut Handle, bytes: usize, _: c_uint) -> c_int {
    // SAFETY: the caller passes a place for the address.
    unsafe { give(to, Device::called("cuMemHostAlloc").lock(bytes)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: Handle) -> c_int {
    code(Device::the().unlock(address))
}

/// Waits for nothing, as work is in a stream that does not block.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> c_int {
    let mut device = Device::called("cuMemcpyHtoD_v2");
    // SAFETY: the caller has so many bytes.
    code(
        device
            .outside_capture()
            .and_then(|()| device.put(to, unsafe { std::slice::from_raw_parts(from, bytes) })),
    )
}

/// What lies in memory that is not page-locked is read before this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _: Handle) -> c_int {
    let mut device = Device::called("cuMemcpyHtoDAsync_v2");
    let work = match device.locked(from as usize, bytes) {
        Ok(_) => Work::Copy { to, from: from as usize, bytes },
        // SAFETY: the caller has so many bytes.
        Err(_) => Work::Write { to, bytes: unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec() },
    };
    code(device.submit(work))
}

/// Waits for nothing, as work is in a stream that does not block.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> c_int {
    let mut device = Device::called("cuMemcpyDtoH_v2");
    let read = device.outside_capture().and_then(|()| device.get(from, bytes));
    // SAFETY: the caller has room for so many bytes, and the device's memory is another.
    code(read.map(|read| unsafe { to.copy_from_nonoverlapping(read.as_ptr(), bytes) }))
}

/// To page-locked memory; to other memory nothing copies so.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _: Handle) -> c_int {
    let mut device = Device::called("cuMemcpyDtoHAsync_v2");
    let locked = device.locked(to as usize, bytes).is_ok();
    let work = Work::Read { to: to as usize, from, bytes };
    code(if locked { device.submit(work) } else { Err(Status::NotSupported) })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, byte: u8, bytes: usize, _: Handle) -> c_int {
    code(Device::the().submit(Work::Fill { to, byte, bytes }))
}

/// Of the device's memory, both.
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _: Handle) -> c_int {
    code(Device::called("cuMemcpyDtoDAsync_v2").submit(Work::Move { to, from, bytes }))
}
