//! Import of models, the compile driver, and what the `fireq` command line is made of.

pub mod import;
