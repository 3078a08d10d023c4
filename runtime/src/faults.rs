//! What a process says when a mapped file cannot be read: systems tell it by a signal, not by an error.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A mapping that the handler knows, as long as this lives.
#[derive(Debug)]
pub(crate) struct Watched(&'static Node);

/// One of a list that only grows: the handler may walk through it at any time, so nothing of it is ever freed. A mapping costs
/// its name and a few words for the rest of the process.
#[derive(Debug)]
struct Node {
    start: usize,
    end: usize,
    name: CString,
    live: AtomicBool,
    next: *const Node,
}

// SAFETY: nothing but `live` changes once a node is in the list, and the nodes behind it are never freed.
unsafe impl Sync for Node {}

static FIRST: AtomicPtr<Node> = AtomicPtr::new(std::ptr::null_mut());

impl Watched {
    /// Tells the handler about the mapping of a file.
    pub fn new(map: &[u8], path: &Path) -> Self {
        let range = map.as_ptr_range();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        let live = AtomicBool::new(true);
        // Whole pages are mapped, and the last one may be what cannot be read.
        let end = (range.end as usize).next_multiple_of(PAGE);
        let node = Node { start: range.start as usize, end, name, live, next: std::ptr::null() };
        let node = Box::leak(Box::new(node));
        let mut first = FIRST.load(Ordering::Acquire);
        loop {
            node.next = first;
            match FIRST.compare_exchange_weak(first, node, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Watched(node),
                Err(now) => first = now,
            }
        }
    }
}

/// The largest page of a mapping that is not made of large ones.
const PAGE: usize = 64 << 10;

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.live.store(false, Ordering::Release);
    }
}

/// From now on a mapped file that cannot be read ends the process with a message that names it, and exit code 1; and a file
/// that may not grow is an error of whoever writes it. Other faults are what they were. For programs, once, at their start.
pub fn explain_faults() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = explain;
    // SAFETY: all zeros are a valid `sigaction`; the handler calls only functions that signal handlers may call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

extern "C" fn explain(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system hands a valid `siginfo_t` to handlers that ask for one.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some(name) = name_at(address) {
        say(b"error: `");
        say(name);
        say(b"` was cut off or cannot be read while it is in use\n  \
            help: look after the file and its disk, and run the same command again\n");
        // SAFETY: ends the process without running anything of it.
        unsafe { libc::_exit(1) }
    }
    // SAFETY: the instruction is executed again, and then the fault is what it is without a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// The name of the file that is mapped at an address.
fn name_at(address: usize) -> Option<&'static [u8]> {
    // SAFETY: nodes are never freed, and `next` is set before a node is in the list.
    let mut node = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
    while let Some(Node { start, end, name, live, next }) = node {
        if (*start..*end).contains(&address) && live.load(Ordering::Acquire) {
            return Some(name.as_bytes());
        }
        // SAFETY: as above.
        node = unsafe { next.as_ref() };
    }
    None
}

fn say(text: &[u8]) {
    // SAFETY: the bytes are valid for their length; what cannot be said is not said.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_known_as_long_as_it_lives() {
        let bytes = vec![0u8; 3 * PAGE];
        let inside = bytes.as_ptr() as usize + PAGE;
        assert_eq!(name_at(inside), None);
        let watched = Watched::new(&bytes, Path::new("/some/file"));
        let others: Vec<_> = (0..9).map(|n| Watched::new(&[n], Path::new("/another"))).collect();
        assert_eq!(name_at(inside), Some(&b"/some/file"[..]));
        drop(others);
        assert_eq!(name_at(inside), Some(&b"/some/file"[..]));
        drop(watched);
        assert_eq!(name_at(inside), None);
    }
}
