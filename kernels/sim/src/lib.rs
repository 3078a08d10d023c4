//! A functional simulator of sm_90a kernels.
mod decode;
mod flow;
mod number;
mod op;
mod program;
mod ptx;
mod types;
pub use program::Module;
pub use ptx::ParseError;
#[test]
fn parses() {
    for f in ["a", "b"] {
        let text = std::fs::read_to_string(format!("/tmp/nv/{f}.ptx")).unwrap();
        if let Err(e) = Module::parse(&text) { panic!("{f} {e}"); }
    }
}
