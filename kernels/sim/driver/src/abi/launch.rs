//! Modules, kernels, their launches, and the descriptors that they take.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use fireq_sim::{Swizzle, TensorMap};

use super::{Handle, code, give};
use crate::device::{Device, Shape, Status};
use crate::image;
use crate::stream::Work;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const u8) -> c_int {
    // SAFETY: the caller passes a whole image, and a place for the handle.
    unsafe { give(module, Device::the().load(image::bytes(image))) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: Handle) -> c_int {
    code(Device::the().unload(module))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut Handle,
    module: Handle,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller passes a name, and a place for the handle.
    let (name, function) = (unsafe { CStr::from_ptr(name) }.to_str(), function);
    let found = name.map_err(|_| Status::NotFound).and_then(|name| Device::the().function(module, name));
    // SAFETY: as above.
    unsafe { give(function, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(to: *mut c_int, attribute: c_int, function: Handle) -> c_int {
    let value = Device::the().sizes(function).map(|[_, shared, local]| match attribute {
        1 => shared as c_int,
        3 => local as c_int,
        _ => 0,
    });
    // SAFETY: the caller passes a place for the value.
    unsafe { give(to, value) }
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) -> c_int {
    const MOST_DYNAMIC_SHARED: c_int = 8;
    let wanted = usize::try_from(value).map_err(|_| Status::InvalidValue);
    code(match attribute {
        MOST_DYNAMIC_SHARED => {
            wanted.and_then(|bytes| Device::called("cuFuncSetAttribute").allow_shared(function, bytes))
        }
        _ => Err(Status::NotSupported),
    })
}

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: Handle,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute`: a number, and a value of 64 bytes at a multiple of eight.
#[repr(C)]
struct Attribute {
    id: c_uint,
    pad: u32,
    value: [u64; 8],
}

/// The name of the attribute by which a kernel may begin before those in front of it are done, which is counted.
const OVERLAPS: &str = "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION";
const OVERLAPS_ID: c_uint = 6;

/// Kernels take one parameter, a structure. That one may begin early has no effect: kernels run one after the other.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernelEx(
    config: *const Config,
    function: Handle,
    parameters: *const *const u8,
    _: *const c_void,
) -> c_int {
    // SAFETY: the caller passes a configuration with as many attributes as it says.
    let (config, attributes) = unsafe {
        let config = &*config;
        let count = config.count as usize;
        (config, if count > 0 { std::slice::from_raw_parts(config.attributes, count) } else { &[] })
    };
    for attribute in attributes {
        if attribute.id != OVERLAPS_ID || attribute.value[0] as c_uint > 1 {
            return Status::NotSupported as c_int;
        }
        drop(Device::called(OVERLAPS));
    }
    let Config { grid, block, dynamic_shared, .. } = *config;
    let shape = Shape { grid, block, dynamic_shared: dynamic_shared as usize };
    let mut device = Device::called("cuLaunchKernelEx");
    code(device.sizes(function).and_then(|[bytes, ..]| {
        // SAFETY: the caller passes the structure that the kernel declares.
        let params = unsafe { std::slice::from_raw_parts(*parameters, bytes) }.to_vec();
        device.submit(Work::Launch { function, shape, params })
    }))
}

/// Tiled descriptors without interleaving, element strides of 1 and zeros outside, in the simulator's encoding.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuTensorMapEncodeTiled(
    to: *mut [u8; 128],
    dtype: c_uint,
    rank: c_uint,
    address: u64,
    dims: *const u64,
    strides: *const u64,
    block: *const c_uint,
    steps: *const c_uint,
    interleave: c_uint,
    swizzle: c_uint,
    _: c_uint,
    fill: c_uint,
) -> c_int {
    let rank = rank as usize;
    // Unsigned integers of 8, 16 and 32 bits; 64 of them are 4.
    let bytes = [1, 2, 4, 0, 8].get(dtype as usize).copied().unwrap_or(0);
    let swizzle = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128].get(swizzle as usize).copied();
    let (Some(swizzle), true, 0, 0) = (swizzle, (1..=5).contains(&rank) && bytes > 0, interleave, fill)
    else {
        return Status::NotSupported as c_int;
    };
    // SAFETY: all arrays have `rank` elements, strides one less.
    let map = unsafe {
        if (0..rank).any(|n| *steps.add(n) != 1) {
            return Status::NotSupported as c_int;
        }
        TensorMap {
            address,
            rank,
            element_bytes: bytes,
            dims: std::array::from_fn(|n| if n < rank { *dims.add(n) } else { 0 }),
            strides: std::array::from_fn(|n| if n + 1 < rank { *strides.add(n) } else { 0 }),
            block: std::array::from_fn(|n| if n < rank { *block.add(n) } else { 0 }),
            swizzle,
        }
    };
    // SAFETY: the caller passes a place for the descriptor.
    unsafe { give(to, map.encode().map_err(|_| Status::InvalidValue)) }
}
