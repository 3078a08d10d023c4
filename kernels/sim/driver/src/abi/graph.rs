//! Capture of the stream, and graphs.

use std::ffi::{c_int, c_uint, c_ulonglong};

use super::{Handle, code, give};
use crate::device::{Device, Status};

/// Captures of one thread, which fail on calls of that thread alone; there are no others here.
const THREAD_LOCAL: c_uint = 1;

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(_: Handle, mode: c_uint) -> c_int {
    let mut device = Device::called("cuStreamBeginCapture_v2");
    code(if mode == THREAD_LOCAL { device.begin_capture() } else { Err(Status::NotSupported) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(_: Handle, graph: *mut Handle) -> c_int {
    let captured = Device::the().end_capture();
    // SAFETY: the caller passes a place for the handle, which is none where there is no graph.
    unsafe { give(graph, Ok(captured.unwrap_or(0))) };
    code(captured.map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(to: *mut Handle, graph: Handle, _: c_ulonglong) -> c_int {
    // SAFETY: the caller passes a place for the handle.
    unsafe { give(to, Device::called("cuGraphInstantiateWithFlags").instantiate(graph)) }
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(graph: Handle, _: Handle) -> c_int {
    code(Device::called("cuGraphLaunch").launch_graph(graph))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: Handle) -> c_int {
    code(Device::called("cuGraphDestroy").destroy_graph(graph))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(graph: Handle) -> c_int {
    code(Device::called("cuGraphExecDestroy").destroy_graph(graph))
}
