//! Artifacts read, refused and executed.

#[cfg(unix)]
mod links;
mod session;
mod small;
mod untrusted;
