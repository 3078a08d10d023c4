//! When launches run.

use serde::Serialize;
use serde_json::{Value, json};

/// A launch that ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ran {
    /// The plan's launch.
    pub symbol: String,
    /// What ran: the plan's kernel on CPUs, the function on GPUs.
    pub kernel: String,
    /// Seconds from the beginning of the trace.
    pub start: f64,
    /// How long it took.
    pub seconds: f64,
}

/// Launches in Chrome's trace format, in microseconds.
pub fn chrome_trace(launches: &[Ran]) -> String {
    let event = |ran: &Ran| {
        json!({
            "name": ran.symbol, "cat": ran.kernel, "ph": "X", "pid": 0, "tid": 0,
            "ts": ran.start * 1e6, "dur": ran.seconds * 1e6, "args": { "kernel": ran.kernel },
        })
    };
    let events: Vec<Value> = launches.iter().map(event).collect();
    json!({ "displayTimeUnit": "ns", "traceEvents": events }).to_string()
}
