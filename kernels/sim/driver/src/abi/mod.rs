//! The functions of `libcuda`, as `cuda.h` declares them. Handles are numbers; the one context and the one stream need none.

mod launch;

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::device::{Device, NAME, Status};

type Handle = usize;

/// What stands for the context and for streams.
const ONE: Handle = 1;

/// Memory that the device says it has, and its level-2 cache.
const MEMORY: usize = 64 << 30;
const L2: c_int = 1 << 20;
/// A few multiprocessors, so that persistent kernels do several tiles each.
const MULTIPROCESSORS: c_int = 4;

thread_local! { static CURRENT: Cell<Handle> = const { Cell::new(0) }; }

fn code(result: Result<(), Status>) -> c_int {
    result.map_or_else(|status| status as c_int, |()| 0)
}

/// Writes a result through a pointer that the caller answers for.
///
/// # Safety
///
/// `to` is valid for a write.
unsafe fn give<T>(to: *mut T, result: Result<T, Status>) -> c_int {
    code(result.map(|value| {
        // SAFETY: as the caller promises.
        unsafe { to.write(value) };
    }))
}

/// Functions that succeed and give these values, or do nothing.
macro_rules! constant {
    ($($name:ident($($ignored:ident: $ty:ty),*) $(=> $value:expr, $out:ty)?;)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($(_to: *mut $out,)? $($ignored: $ty),*) -> c_int {
            $(let _ = &$ignored;)*
            // SAFETY: the caller passes a place for the value.
            $(unsafe { _to.write($value) };)?
            0
        }
    )* };
}

constant! {
    cuInit(flags: c_uint);
    cuDriverGetVersion() => 13000, c_int;
    cuDeviceGetCount() => 1, c_int;
    cuDeviceTotalMem_v2(device: c_int) => MEMORY, usize;
    cuDevicePrimaryCtxRetain(device: c_int) => ONE, Handle;
    cuDevicePrimaryCtxRelease_v2(device: c_int);
    cuCtxGetCurrent() => CURRENT.get(), Handle;
    cuStreamCreate(flags: c_uint) => ONE, Handle;
    cuStreamDestroy_v2(stream: Handle);
    cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint);
    cuEventCreate(flags: c_uint) => Device::the().event(), Handle;
    cuEventDestroy_v2(event: Handle);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    const NO_DEVICE: c_int = 101;
    // SAFETY: the caller passes a place for the device.
    if ordinal == 0 { unsafe { give(device, Ok(0)) } } else { NO_DEVICE }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(to: *mut c_char, len: c_int, _: c_int) -> c_int {
    let len = (len.max(1) as usize - 1).min(NAME.len());
    // SAFETY: the caller has `len` bytes and one more for the zero.
    unsafe {
        std::ptr::copy_nonoverlapping(NAME.as_ptr(), to.cast::<u8>(), len);
        to.add(len).write(0);
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(to: *mut c_int, attribute: c_int, _: c_int) -> c_int {
    let value = match attribute {
        1 => 1024, // threads of a CTA
        16 => MULTIPROCESSORS,
        38 => L2,
        75 => 9, // compute capability
        _ => 0,
    };
    // SAFETY: the caller passes a place for the value.
    unsafe { give(to, Ok(value)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> c_int {
    CURRENT.set(context);
    0
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_int {
    code(Device::the().check())
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(_: Handle) -> c_int {
    code(Device::the().check())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(to: *mut u64, bytes: usize) -> c_int {
    let wanted = if bytes == 0 { Err(Status::InvalidValue) } else { Device::the().allocate(bytes) };
    // SAFETY: the caller passes a place for the address.
    unsafe { give(to, wanted) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    code(Device::the().free(address))
}

/// Nothing else is allocated, as far as programs can tell.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    // SAFETY: the caller passes places for both.
    unsafe { give(total, Ok(MEMORY)) + give(free, Ok(MEMORY)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(to: *mut *mut c_void, bytes: usize, _: c_uint) -> c_int {
    // SAFETY: the caller passes a place for the address.
    unsafe { give(to, Device::the().pin(bytes).map(<*mut u8>::cast)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: *mut c_void) -> c_int {
    code(Device::the().unpin(address as usize))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _: Handle) -> c_int {
    let mut device = Device::the();
    let read = device.read(from, bytes).map(<[u8]>::to_vec);
    code(read.and_then(|read| device.write(to, &read)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> c_int {
    // SAFETY: the caller has so many bytes.
    code(Device::the().write(to, unsafe { std::slice::from_raw_parts(from, bytes) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _: Handle) -> c_int {
    // SAFETY: as for the copy that waits.
    unsafe { cuMemcpyHtoD_v2(to, from, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> c_int {
    // SAFETY: the caller has room for so many bytes, and the device's memory is another.
    code(
        Device::the()
            .read(from, bytes)
            .map(|read| unsafe { to.copy_from_nonoverlapping(read.as_ptr(), bytes) }),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _: Handle) -> c_int {
    // SAFETY: as for the copy that waits.
    unsafe { cuMemcpyDtoH_v2(to, from, bytes) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, byte: u8, bytes: usize, _: Handle) -> c_int {
    code(Device::the().write(to, &vec![byte; bytes]))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, _: Handle) -> c_int {
    code(Device::the().record(event))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(_: Handle) -> c_int {
    code(Device::the().check())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime_v2(to: *mut f32, start: Handle, end: Handle) -> c_int {
    // SAFETY: the caller passes a place for the time.
    unsafe { give(to, Device::the().elapsed(start, end)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> c_int {
    let words = match error {
        1 => c"invalid argument",
        101 => c"invalid device ordinal",
        200 => c"device kernel image is invalid",
        209 => c"no kernel image is available for execution on the device",
        400 => c"invalid resource handle",
        500 => c"named symbol not found",
        719 => c"unspecified launch failure",
        _ => c"operation not supported",
    };
    // SAFETY: the caller passes a place for the text, which lives for ever.
    unsafe { give(text, Ok(words.as_ptr())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(error: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: the same.
    unsafe { cuGetErrorString(error, text) }
}
