//! The intermediate representation of fireq: graphs of tensor operations, the passes' unit of change, the interpreter
//! that every backend is checked against, and the plan that backends execute.
//!
//! A graph is built or parsed, verified, changed by patches, run by the interpreter, and lowered:
//!
//! ```
//! use fireq_ir::interp::{Tensor, interpret};
//! use fireq_ir::{ConstData, DType, Dim, Fit, Format, Graph, Op, Patch, Shape, Type, plan, text, verify};
//! use std::collections::BTreeMap;
//!
//! let mut graph = Graph::new("example");
//! let x = graph.input("x", Type::f32(Dim::sym("T"), 4usize));
//! let weight = ConstData::from_f32(&[1.0, -2.0, 0.5, 0.25, 0.0, 3.0, 1.0, -1.0]);
//! let weight = graph.constant("w", Type::plain(DType::F32, Shape::matrix(2usize, 4usize)), weight);
//! let y = graph.add(Op::Linear, &[x, weight])?;
//! graph.outputs.push(y);
//! verify::verify(&graph)?;
//!
//! // A patch adds nodes and replaces values; the gate refuses one that changes a type.
//! let mut patch = Patch::new("w");
//! let codes = patch.add(&graph, Op::Quantize { to: Format::weight(128), fit: Fit::Absmax }, &[weight.into()])?;
//! let quantized = patch.add(&graph, Op::Linear, &[x.into(), codes])?;
//! patch.replace(y, quantized);
//! graph.apply(patch, &mut BTreeMap::new())?;
//! assert_eq!(
//!     text::print_graph(&graph),
//!     r#"graph "example" {
//!   %0 = input {name="x"} : f32[T,4]
//!   %1 = const {name="w", data=[1.0, -2.0, 0.5, 0.25, 0.0, 3.0, 1.0, -1.0]} : f32[2,4]
//!   %2 = quantize %1 {to=i4<g128:e4m3,row:f32>} : i4<g128:e4m3,row:f32>[2,4]
//!   %3 = linear %0, %2 : f32[T,2]
//!   return %3
//! }
//! "#
//! );
//!
//! let inputs = BTreeMap::from([("x".to_string(), Tensor::from_rows(vec![1.0, 1.0, 1.0, 1.0], 4))]);
//! let outcome = interpret(&graph, &inputs, &BTreeMap::new())?;
//! let exact = [-0.25, 3.0];
//! for (found, exact) in outcome.outputs[0].to_f32().iter().zip(exact) {
//!     assert!((found - exact).abs() < 0.2);
//! }
//!
//! // What passes leave is lowered to launches over buffers.
//! # let x8 = graph.outputs[0];
//! # let _ = x8;
//! let error = plan::lower(&graph).unwrap_err();
//! assert_eq!(error.reason, "4 channels are not a multiple of 32; quantize the activation too");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # ARCHITECTURE
//!
//! Two program forms, never one with phases. [`Graph`] is mathematics: a DAG of [`Op`]s on typed values, without
//! buffers or order. [`plan::Plan`] is execution: ordered launches over buffers with places and sizes. Passes work on
//! graphs, code generators on plans, and [`plan::lower`] is the only way from one to the other.
//!
//! | file | holds |
//! |---|---|
//! | `op` | the one table of operations: documentation, names, operands, attributes |
//! | `types`, `shape`, `dtype` | dtype × quantization [`Scheme`] × shape with symbols `T` (tokens of a step), `P` (past), `L` (selected rows) |
//! | `graph` | the DAG; the only file that names petgraph |
//! | `constant`, `source`, `numbers` | data of constants: where it is read from, rows that are made when asked for, numbers that are none |
//! | `expression` | what depends on constants only |
//! | `fused` | what each fused operation stands for: its type, its numbers and its launches follow |
//! | `infer`, `verify` | the type of each operation; every invariant, stated in prose first |
//! | `text` | the canonical text, its parser and errors |
//! | `patch`, `pass`, `pipeline` | the unit of change and its gate; passes, and what is seen of them while they run |
//! | `e4m3`, `quant`, `fit`, `rescale` | the numeric contract: FP8 rounding, the quantizers and how they choose scales, shared by all that must agree to the bit |
//! | `interp` | the oracle: one operation at a time, sums in f64 rounded once |
//! | `plan` | lowering, storage orders, weight packing, the plan's text and verifier |
//! | `artifact` | the manifest: what an artifact directory vouches for |
//!
//! A quantized value is one value: codes with the scales that its scheme lists, innermost first. `i4<g128:e4m3,row:f32>`
//! reads: INT4 codes, an E4M3 scale per 128 of them, and an f32 scale per row outside the rounding. The number behind a
//! code is `outer · rn8(code · scale)` everywhere: here, in generated code, on every machine.
//!
//! A linear takes weights of three kinds: numbers; INT4 codes, whose groups are decoded in the main loop; and E4M3 codes with
//! one scale per row, `e4m3<row:f32>`, as heads have them. Of the last the sum is taken over `x · code`, both exact, and the row's
//! scale multiplies it once, as it does for inputs in E4M3; an input of numbers is not rounded for them. They are stored plain on
//! every target, `codes` and `scales`. Where a head shares its constant with the embedding, a plan has two weights of it, the
//! second by the name with `.2`.
//!
//! A KV cache is a `cache` node read by one operation that appends to it, whose result is the next step's cache. So a
//! pass can change what a cache holds without changing the graph's interface, and what is appended is needed even where
//! no output needs it. Graphs with caches are compared over several steps from empty ones.
//!
//! An expression over constants is a value like any other. Passes build them freely (a scaled weight, three weights one
//! above the other, codes); nothing large is computed before an artifact is written, one weight at a time.
//!
//! A fused operation is defined as the operations that it stands for, once, in `fused`. Its type and its numbers follow,
//! and so does what a backend without a kernel for it launches: the CPU's plan of a fused graph is that of the unfused one.
//!
//! A constant may hold codes: packed, and then its scales, level by level, as calibrated passes leave them. What a checkpoint holds
//! in another order, or packed, is a constant too, whose rows are decoded when they are asked for ([`RowSource`]); codes that can
//! stay are `rescale`d, which chooses other scales for them. A `fence` keeps
//! scales on its two sides apart that would otherwise be multiplied out.
//!
//! A pass proposes patches for a graph that it cannot change. [`Pipeline`] runs passes to their fixpoints, verifies after
//! each, and shows an [`Observer`] what happens; what a failed pass leaves behind is enough to see it fail again.
//!
//! Adding an operation starts with a row in `op` and ends when the compiler stops complaining: inference, interpreter,
//! lowering and code generation are exhaustive matches.

pub mod artifact;
pub mod e4m3;
pub mod expression;
pub mod fused;
pub mod infer;
pub mod interp;
pub mod plan;
pub mod quant;
pub mod text;
pub mod verify;

mod attr;
mod constant;
mod dtype;
mod fit;
mod graph;
mod numbers;
mod op;
mod pass;
mod patch;
mod pipeline;
mod rescale;
mod shape;
mod source;
mod types;

pub use attr::{Attr, AttrError, Attribute, Quoted};
pub use constant::{ConstData, Reading};
pub use dtype::{DTYPES, DType};
pub use fit::{CLIP_RATIOS, FITS, Fit};
pub use graph::{Graph, Node, ValueId};
pub use numbers::first_non_finite;
pub use op::{OPS, Op, OpInfo};
pub use pass::{Applied, Effect, Pass, PassError, propose};
pub use patch::{Moved, Patch, PatchError, Ref};
pub use pipeline::{Failed, Observer, Pipeline, Ran, RunOptions, Step, Stopped, Unobserved};
pub use shape::{Dim, DimBindings, Shape};
pub use source::{ByteSource, RowSource, SharedBytes, Sources};
pub use types::{Format, Level, Per, Scheme, Type};
