//! Time on a GPU, between two points of its stream.

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

use super::{CudaError, Gpu};

/// A stretch of a stream's work.
#[derive(Debug)]
pub struct Timer {
    gpu: Gpu,
    start: CudaEvent,
    end: CudaEvent,
}

impl Gpu {
    /// A timer that can be used again and again.
    pub fn timer(&self) -> Result<Timer, CudaError> {
        let event = || self.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        let [start, end] = [event(), event()].map(|event| event.map_err(CudaError::of("an event")));
        Ok(Timer { gpu: self.clone(), start: start?, end: end? })
    }

    /// Seconds of some work, shortest first: `timed` times of it behind `warm_up` others, each behind a write of more than the
    /// level-2 cache holds. `work` is told how often it ran.
    pub fn times(
        &self,
        warm_up: usize,
        timed: usize,
        mut work: impl FnMut(usize) -> Result<(), CudaError>,
    ) -> Result<Vec<f64>, CudaError> {
        let mut flush = self.allocate(2 * usize::try_from(self.facts()?.l2).unwrap_or(0))?;
        let timer = self.timer()?;
        let mut once = |n| {
            flush.fill(0)?;
            timer.start()?;
            work(n)?;
            timer.stop()
        };
        let mut times =
            (0..warm_up + timed).map(&mut once).collect::<Result<Vec<_>, _>>()?.split_off(warm_up);
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

impl Gpu {
    /// An event without a time.
    pub(super) fn event(&self) -> Result<CudaEvent, CudaError> {
        self.context.new_event(None).map_err(CudaError::of("an event"))
    }

    /// Has an event happen when everything before is done.
    pub(super) fn record(&self, event: &CudaEvent) -> Result<(), CudaError> {
        event.record(&self.stream).map_err(CudaError::of("an event"))
    }
}

/// A point of a stream's work.
#[derive(Debug)]
pub struct Mark(CudaEvent);

impl Gpu {
    /// Where the stream is now.
    pub fn mark(&self) -> Result<Mark, CudaError> {
        let event = self.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        let event = event.map_err(CudaError::of("an event"))?;
        self.record(&event)?;
        Ok(Mark(event))
    }
}

impl Mark {
    /// Seconds of work from another point to this one, for which it waits.
    pub fn since(&self, other: &Mark) -> Result<f64, CudaError> {
        let milliseconds = other.0.elapsed_ms(&self.0).map_err(CudaError::of("timed kernels"))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Timer {
    /// The work behind this point counts.
    pub fn start(&self) -> Result<(), CudaError> {
        self.gpu.record(&self.start)
    }

    /// Seconds from the start until all work before this point is done, for which it waits.
    pub fn stop(&self) -> Result<f64, CudaError> {
        self.gpu.record(&self.end)?;
        let milliseconds = self.start.elapsed_ms(&self.end).map_err(CudaError::of("timed kernels"))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}
