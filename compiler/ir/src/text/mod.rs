//! The canonical text of graphs and plans: parse(print(g)) = g, and equal graphs print equal bytes.
//!
//! ```text
//! graph "name" {
//!   %0 = input {name="tokens"} : i32[T]
//!   %1 = const {name="embed", hash="0123456789abcdef"} : bf16[1024,256]
//!   %2 = gather %1, %0 : f32[T,256]
//!   return %2
//! }
//! ```
//!
//! Values are numbered by [`crate::Graph::schedule`]. Constants of at most eight elements are printed with their data,
//! longer ones with a hash; both may be left out. `//` starts a comment.

pub(crate) mod cursor;
mod error;
mod lex;
mod parse;
mod print;

pub(crate) use print::attrs_text;

pub use error::{ParseError, nearest};
pub use parse::{TextError, parse_and_verify, parse_graph};
pub use print::{print_graph, print_lines, print_standalone};
