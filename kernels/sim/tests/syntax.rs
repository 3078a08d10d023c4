//! What the parser refuses, and that no text makes it panic.

mod fixture;

use fireq_sim::Module;
use fixture::ptx;
use proptest::prelude::*;

fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n.reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .f32 %f<4>; .reg .pred %p<2>;\n{body}\n}}\n"
    )
}

fn refused(body: &str) -> String {
    let error = Module::parse(&kernel(body)).err().unwrap_or_else(|| panic!("accepted: {body}"));
    assert_eq!(error.line, 7, "{body}: {error}");
    error.message
}

#[test]
fn what_is_unknown_is_an_error_with_its_line() {
    assert_eq!(refused("frobnicate.u32 %r1, %r2;"), "`frobnicate.u32` is not a known instruction");
    assert_eq!(
        refused("add.weird.u32 %r1, %r2, %r3;"),
        "modifier `.weird` of `add.weird.u32` is not supported"
    );
    assert_eq!(refused("add.u32 %r1, %r2, %r7;"), "`%r7` is not declared");
    assert_eq!(refused("add.u32 %r1, %r2;"), "`add.u32` needs more operands");
    assert_eq!(refused("add.u32 %r1, %r2, %r3, %r3;"), "`add.u32` has too many operands");
    assert_eq!(refused("add.u32 %r1, %r2, [%rd1];"), "a register or a constant is expected here");
    assert_eq!(refused("ld.global.u32 %r1, %rd1;"), "an address is expected here");
    assert_eq!(refused("bra NOWHERE;"), "no label `NOWHERE`");
    assert_eq!(refused("L: L: ret;"), "label `L` is defined twice");
    assert_eq!(refused("call (%r1), f, (%r2);"), "expected an operand, found `(`");
    assert_eq!(
        refused("ld.global.v4.u64 {%rd1, %rd2, %rd3, %rd1}, [%rd1];"),
        "this form of `ld.global.v4.u64` is not supported"
    );
    assert_eq!(
        refused("@%p1 setp.eq.s32 %p1|%p0, %r1, 0;"),
        "the guard is also a result of this instruction, which is not supported"
    );
    assert_eq!(
        refused("setmaxnreg.inc.sync.aligned.u32 33;"),
        "33 registers: a multiple of 8 from 24 to 256 is needed"
    );
    assert_eq!(
        refused(
            "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1, %r2}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r1, %r2};"
        ),
        "only f32 accumulators are supported"
    );
}

#[test]
fn declarations_are_checked() {
    let error =
        |text: &str| Module::parse(text).err().unwrap_or_else(|| panic!("accepted: {text}")).to_string();
    assert_eq!(error(".version 8.0\n.nonsense"), "line 2: `.nonsense` is not a known directive");
    assert_eq!(error(".global .b8 x[99999999999];"), "line 1: `x` is too large");
    assert_eq!(error(".global .align 3 .b8 x[8];"), "line 1: 3 is not an alignment");
    assert!(error(".visible .entry k() { .reg .b32 %r<999999999>; }").contains("too many registers"));
    assert!(error(".func f() { ret; }").contains("not inlined"));
    assert!(error(".visible .entry k() { ").contains("expected an instruction, found the end of the text"));
    assert!(error(".visible .entry k() { ret; } .visible .entry k() { ret; }").contains("defined twice"));
    assert!(error("/* open").contains("does not end"));
}

#[test]
fn scopes_of_inline_assembly_have_their_own_names() {
    let scope = "{ .reg .pred p; AGAIN: setp.eq.s32 p, %r1, %r2; @!p bra AGAIN; }";
    Module::parse(&kernel(&format!("{scope}\n{scope}"))).unwrap();
    assert!(Module::parse(&kernel(&format!("{scope}\n@p bra AGAIN;"))).is_err());
    // As CUDA's headers write it.
    Module::parse(&kernel("{.reg.b16 low, high; mov.b32 {low, high}, %r1; mov.b32 %r2, {0, low};}")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_modules_do_not_panic(name in prop::sample::select(vec!["norm", "gemm", "cluster", "generic"]), edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..6)) {
        let mut text = ptx(name).into_bytes();
        for (at, kind, byte) in edits {
            let at = at.index(text.len());
            match kind {
                0 => drop(text.remove(at)),
                1 => text.insert(at, byte),
                2 => text[at] = byte,
                _ => text.truncate(at.max(100)),
            }
        }
        drop(Module::parse(&String::from_utf8_lossy(&text)));
    }

    #[test]
    fn shuffled_operands_do_not_panic(seed in any::<prop::sample::Index>(), swap in any::<prop::sample::Index>()) {
        let text = ptx("gemm");
        let mut lines: Vec<&str> = text.lines().collect();
        let (a, b) = (seed.index(lines.len()), swap.index(lines.len()));
        lines.swap(a, b);
        drop(Module::parse(&lines.join("\n")));
        let words: Vec<&str> = text.split_whitespace().collect();
        let mixed: Vec<&str> = words.iter().enumerate().map(|(i, w)| if i == a { words[b % words.len()] } else { w }).collect();
        drop(Module::parse(&mixed.join(" ")));
    }
}
