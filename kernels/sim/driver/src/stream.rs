//! The one stream: work waits until something waits for it, as late as a GPU may begin, so that what the host changes too soon
//! shows. Captured work becomes a graph.

use std::sync::Arc;

use crate::device::{Device, Shape, Status};

/// A piece of a stream's work. Memory of the host is page-locked, and touched when the work is done.
#[derive(Clone)]
pub enum Work {
    /// A kernel.
    Launch { function: usize, shape: Shape, params: Vec<u8> },
    /// A copy from the host.
    Copy { to: u64, from: usize, bytes: usize },
    /// A copy of what the host had.
    Write { to: u64, bytes: Vec<u8> },
    /// A copy to the host.
    Read { to: usize, from: u64, bytes: usize },
    /// A copy on the device.
    Move { to: u64, from: u64, bytes: usize },
    /// Bytes that become this one.
    Fill { to: u64, byte: u8, bytes: usize },
    /// A point in time.
    Record(usize),
    /// Everything that was captured.
    Graph(Arc<Vec<Work>>),
}

/// What becomes of work.
#[derive(Default)]
pub struct Stream {
    waiting: Vec<Work>,
    capture: Option<Capture>,
    graphs: Vec<Option<Arc<Vec<Work>>>>,
}

#[derive(Default)]
struct Capture {
    work: Vec<Work>,
    /// Something was called that a capture does not survive.
    broken: bool,
}

impl Device {
    /// Adds work to the stream, or to what is captured of it.
    pub fn submit(&mut self, work: Work) -> Result<(), Status> {
        self.check()?;
        if let Work::Launch { function, shape, .. } = &work {
            self.check_shape(*function, shape)?;
        }
        match &mut self.stream.capture {
            Some(Capture { broken: true, .. }) => Err(Status::CaptureInvalidated),
            Some(capture) => match work {
                Work::Launch { .. } | Work::Copy { .. } | Work::Read { .. } | Work::Fill { .. } => {
                    capture.work.push(work);
                    Ok(())
                }
                _ => Err(Status::NotSupported),
            },
            None => {
                self.stream.waiting.push(work);
                Ok(())
            }
        }
    }

    /// Does all work.
    pub fn wait(&mut self) -> Result<(), Status> {
        self.outside_capture()?;
        for work in std::mem::take(&mut self.stream.waiting) {
            self.perform(&work);
        }
        self.check()
    }

    /// Does all work up to where an event was last recorded.
    pub fn wait_for(&mut self, event: usize) -> Result<(), Status> {
        self.outside_capture()?;
        let recorded = |work: &Work| matches!(work, Work::Record(at) if *at == event);
        let end = self.stream.waiting.iter().rposition(recorded).map_or(0, |at| at + 1);
        for work in self.stream.waiting.drain(..end).collect::<Vec<_>>() {
            self.perform(&work);
        }
        self.check()
    }

    fn perform(&mut self, work: &Work) {
        if self.check().is_err() {
            return;
        }
        match work {
            Work::Launch { function, shape, params } => self.execute(*function, shape, params.clone()),
            Work::Graph(all) => all.iter().for_each(|work| self.perform(work)),
            Work::Record(event) => self.now(*event),
            _ => {
                let copied = self.copy(work);
                self.fail_where(copied.is_err());
            }
        }
    }

    fn copy(&mut self, work: &Work) -> Result<(), Status> {
        match work {
            Work::Copy { to, from, bytes } => {
                let bytes = self.locked(*from, *bytes)?.to_vec();
                self.put(*to, &bytes)
            }
            Work::Read { to, from, bytes } => {
                let read = self.get(*from, *bytes)?.to_vec();
                self.locked(*to, *bytes)?.copy_from_slice(&read);
                Ok(())
            }
            Work::Move { to, from, bytes } => {
                let read = self.get(*from, *bytes)?.to_vec();
                self.put(*to, &read)
            }
            Work::Write { to, bytes } => self.put(*to, bytes),
            Work::Fill { to, byte, bytes } => self.put(*to, &vec![*byte; *bytes]),
            _ => Ok(()),
        }
    }

    /// Calls that wait, or change what work may use, are none that a capture survives.
    pub fn outside_capture(&mut self) -> Result<(), Status> {
        match &mut self.stream.capture {
            None => Ok(()),
            Some(capture) => {
                capture.broken = true;
                Err(Status::CaptureUnsupported)
            }
        }
    }

    pub fn begin_capture(&mut self) -> Result<(), Status> {
        self.check()?;
        if self.stream.capture.is_some() {
            return Err(Status::IllegalState);
        }
        self.stream.capture = Some(Capture::default());
        Ok(())
    }

    /// A handle of the graph of what was captured.
    pub fn end_capture(&mut self) -> Result<usize, Status> {
        let Capture { work, broken } = self.stream.capture.take().ok_or(Status::IllegalState)?;
        if broken { Err(Status::CaptureInvalidated) } else { Ok(self.stream.add(Arc::new(work))) }
    }

    /// A handle of a graph that can be launched.
    pub fn instantiate(&mut self, graph: usize) -> Result<usize, Status> {
        self.check()?;
        let work = self.stream.graph(graph)?;
        Ok(self.stream.add(work))
    }

    pub fn launch_graph(&mut self, graph: usize) -> Result<(), Status> {
        let work = self.stream.graph(graph)?;
        self.submit(Work::Graph(work))
    }

    pub fn destroy_graph(&mut self, graph: usize) -> Result<(), Status> {
        let place = graph.checked_sub(1).and_then(|n| self.stream.graphs.get_mut(n));
        place.and_then(Option::take).map(drop).ok_or(Status::InvalidHandle)
    }
}

impl Stream {
    fn add(&mut self, work: Arc<Vec<Work>>) -> usize {
        self.graphs.push(Some(work));
        self.graphs.len()
    }

    fn graph(&self, handle: usize) -> Result<Arc<Vec<Work>>, Status> {
        let place = handle.checked_sub(1).and_then(|n| self.graphs.get(n));
        place.and_then(Clone::clone).ok_or(Status::InvalidHandle)
    }
}
