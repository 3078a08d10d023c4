//! Launches of a trace, added up by kernel.

use fireq_runtime::Ran;
use serde::Serialize;

use crate::commands::output::table;

/// A kernel's launches.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// The kernel.
    pub kernel: String,
    /// How often it was launched.
    pub launches: usize,
    /// Of all launches together.
    pub seconds: f64,
}

/// All launches by kernel, those that take longest first.
pub fn kernels(ran: &[Ran]) -> Vec<Timed> {
    let mut kernels: Vec<Timed> = vec![];
    for Ran { kernel, seconds, .. } in ran {
        match kernels.iter_mut().find(|known| known.kernel == *kernel) {
            Some(known) => (known.launches, known.seconds) = (known.launches + 1, known.seconds + seconds),
            None => kernels.push(Timed { kernel: kernel.clone(), launches: 1, seconds: *seconds }),
        }
    }
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    kernels
}

/// A table of them.
pub fn table_of(kernels: &[Timed]) -> String {
    let total: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let line = |Timed { kernel, launches, seconds }: &Timed| {
        let share = format!("{:.1} %", 100.0 * seconds / total.max(f64::MIN_POSITIVE));
        [format!("{:.2}", 1e3 * seconds), share, launches.to_string(), kernel.clone()]
    };
    let head = ["ms", "share", "launches", "kernel"].map(String::from);
    table(&std::iter::once(head).chain(kernels.iter().map(line)).collect::<Vec<_>>(), 3)
}
