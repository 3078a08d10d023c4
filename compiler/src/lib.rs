//! Import of models, the compile driver, and what the `fireq` command line is made of.

pub mod bisect;
pub mod build;
pub mod by_site;
pub mod calibrate;
pub mod compile;
pub mod engine;
pub mod estimate;
pub mod evaluate;
pub mod export;
pub mod generate;
pub mod import;
pub mod interpreted;
#[cfg(feature = "llvm")]
mod kernels;
pub mod numerics;
mod page;
mod panics;
pub mod report;
pub mod reproducer;
pub mod shapes;
pub mod source;
pub mod summary;
pub mod tokens;
pub mod tune;
pub mod view;
pub mod watch;
pub mod work;
