//! Steps as graphs: what a step launches is captured once, and started by a single call in later steps of its shape.
//!
//! Graphs are of exact shapes, and not of batches rounded up: rows that nobody asked for cost every step, a capture only one. A
//! shape is captured when it comes again, as one that comes once is not worth it, and as kernels should have run before: the driver
//! may load a kernel when it is first launched, which no capture survives.

use cudarc::driver::result;
use cudarc::driver::sys::{CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::shape::Shape;
use super::{CudaError, Gpu};

/// Work that one call starts. Its parameters are those it was captured with.
#[derive(Debug)]
pub struct Graph {
    gpu: Gpu,
    handle: CUgraphExec,
}

// SAFETY: the graph belongs to a context, which every use makes current, and only this refers to it.
unsafe impl Send for Graph {}
// SAFETY: as above; nothing changes it but launches, which need it alone.
unsafe impl Sync for Graph {}

impl Gpu {
    /// A graph of what `work` launches, which does not run now. Anything but launches is an error.
    pub fn capture<E: From<CudaError>>(&self, work: impl FnOnce() -> Result<(), E>) -> Result<Graph, E> {
        self.bind()?;
        let (stream, failed) = (self.stream.cu_stream(), || CudaError::of("a graph of a step"));
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours, and every use of it is in this thread until the capture ends.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(failed())?;
        let worked = work();
        // SAFETY: the capture began above. It ends whatever happened in it.
        let graph = unsafe { result::stream::end_capture(stream) };
        // What went wrong in it is the reason where it has none.
        worked?;
        let graph = graph.map_err(failed())?;
        // SAFETY: the graph was made above, and is not used when it was instantiated.
        let handle = unsafe {
            let handle = result::graph::instantiate(graph, CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            handle
        };
        Ok(Graph { gpu: self.clone(), handle: handle.map_err(failed())? })
    }
}

impl Graph {
    /// Starts it.
    ///
    /// # Safety
    ///
    /// Addresses that it was captured with must be those of memory as large as its kernels use, alive until the GPU is synchronized.
    pub unsafe fn launch(&self) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the graph and the stream are ours; the caller answers for the memory.
        unsafe { result::graph::launch(self.handle, self.gpu.stream.cu_stream()) }
            .map_err(CudaError::of("launch of a graph"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handle is used nowhere else; the driver keeps a graph that runs until it is done. What fails here failed before.
        let _ = self.gpu.bind().map(|()| unsafe { result::graph::exec_destroy(self.handle) });
    }
}

/// How steps were started so far, as far as graphs can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Graphed {
    /// Steps whose launches were captured.
    pub captured: usize,
    /// Steps that a graph started, those that were captured among them.
    pub replayed: usize,
    /// Graphs that there are now.
    pub kept: usize,
}

/// The shapes of the last steps, and graphs of those that came again.
pub(super) struct Graphs {
    /// The one that came last is the first.
    shapes: Vec<(Shape, Option<Graph>)>,
    most: usize,
    counts: Graphed,
}

/// Shapes that are kept: a text's batch sizes and splits of keys, and those of a few others.
const MOST: usize = 64;

impl Graphs {
    /// None so far.
    pub fn new() -> Self {
        Graphs { shapes: vec![], most: MOST, counts: Graphed::default() }
    }

    /// Keeps no more shapes than this, those that came last; with 0 there are no graphs.
    pub fn keep(&mut self, most: usize) {
        self.most = most;
        self.shapes.truncate(most);
    }

    pub fn counts(&self) -> Graphed {
        Graphed { kept: self.shapes.iter().filter(|(_, graph)| graph.is_some()).count(), ..self.counts }
    }

    /// The graph of a shape that came before, which `capture` makes where there is none; nothing where it comes for the first time,
    /// or is forgotten.
    pub fn of<E>(
        &mut self,
        shape: &Shape,
        capture: impl FnOnce() -> Result<Graph, E>,
    ) -> Result<Option<&Graph>, E> {
        if self.most == 0 {
            return Ok(None);
        }
        let Some(at) = self.shapes.iter().position(|(known, _)| known == shape) else {
            self.shapes.truncate(self.most - 1);
            self.shapes.insert(0, (shape.clone(), None));
            return Ok(None);
        };
        self.shapes[..=at].rotate_right(1);
        let place = &mut self.shapes[0].1;
        if place.is_none() {
            *place = Some(capture()?);
            self.counts.captured += 1;
        }
        self.counts.replayed += 1;
        Ok(place.as_ref())
    }
}
