//! The functions of `libcuda`, as `cuda.h` declares them. Handles are numbers; the one context and the one stream need none.

mod graph;
mod launch;
mod memory;

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint};

use crate::device::{Device, NAME, Status};
use crate::stream::Work;

type Handle = usize;

/// What stands for the context and for streams.
const ONE: Handle = 1;

/// The device's level-2 cache.
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
    cuDeviceTotalMem_v2(device: c_int) => Device::the().room().1, usize;
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
    code(Device::called("cuCtxSynchronize").wait())
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(_: Handle) -> c_int {
    code(Device::called("cuStreamSynchronize").wait())
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: Handle, _: Handle) -> c_int {
    code(Device::the().submit(Work::Record(event)))
}

/// Does what is before the event, and leaves what is behind it.
#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: Handle) -> c_int {
    code(Device::called("cuEventSynchronize").wait_for(event))
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
        2 => c"out of memory",
        101 => c"invalid device ordinal",
        200 => c"device kernel image is invalid",
        209 => c"no kernel image is available for execution on the device",
        400 => c"invalid resource handle",
        401 => c"the operation cannot be performed in the present state",
        500 => c"named symbol not found",
        719 => c"unspecified launch failure",
        900 => c"operation not permitted when stream is capturing",
        901 => c"operation failed due to a previous error during capture",
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

/// How often a function of the driver was called, or launches had an attribute; 0 for what is not counted. No driver has this.
///
/// # Safety
///
/// `name` is a text that ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn fireq_sim_calls(name: *const c_char) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(name) }.to_str().map_or(0, |name| Device::the().calls(name))
}
