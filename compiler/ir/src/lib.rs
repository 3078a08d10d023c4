//! The intermediate representation of fireq.
pub mod artifact;
pub mod e4m3;
pub mod infer;
pub mod interp;
pub mod plan;
pub mod quant;
pub mod text;
pub mod verify;

mod attr;
mod constant;
mod dtype;
mod graph;
mod op;
mod pass;
mod patch;
mod shape;
mod types;

pub use attr::{Attr, AttrError, Attribute, Quoted};
pub use constant::{ByteSource, ConstData, SharedBytes};
pub use dtype::{DTYPES, DType};
pub use graph::{Graph, Node, ValueId};
pub use op::{OPS, Op, OpInfo};
pub use pass::{Effect, Pass, PassError, run_pass, run_pipeline};
pub use patch::{Patch, PatchError, Ref};
pub use shape::{Dim, DimBindings, Shape};
pub use types::{Format, Level, Per, Scheme, Type};
