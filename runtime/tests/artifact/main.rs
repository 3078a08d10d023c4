//! Artifacts read, refused and executed.

mod session;
mod small;
mod untrusted;
