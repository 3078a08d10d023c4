//! Integer, logic and floating-point instructions, against values worked out by hand from the instruction set.

#[path = "fixture/snippet.rs"]
mod snippet;

use snippet::{lanes, one, table};

const M1: u64 = 0xffff_ffff;

fn f(x: f32) -> u64 {
    x.to_bits().into()
}

fn d(x: f64) -> u64 {
    x.to_bits()
}

#[test]
fn integer_arithmetic() {
    table(&[
        ("add.s32 %d, %a, %b;", M1, 2, 0, 1),
        ("sub.u32 %d, %a, %b;", 1, 2, 0, M1),
        ("add.sat.s32 %d, %a, %b;", 0x7fff_fff0, 0x20, 0, 0x7fff_ffff),
        ("add.s64 %ld, %la, %lb;", u64::MAX, 3, 0, 2),
        ("mul.lo.u32 %d, %a, %b;", 0x1_0001, 0x1_0001, 0, 0x2_0001),
        ("mul.hi.u32 %d, %a, %b;", M1, M1, 0, 0xffff_fffe),
        ("mul.hi.s32 %d, %a, %b;", M1, M1, 0, 0),
        ("mul.wide.s32 %ld, %a, %b;", M1, 7, 0, (-7i64) as u64),
        ("mul.wide.u32 %ld, %a, %b;", M1, 7, 0, 0x6_ffff_fff9),
        ("mul.hi.u64 %ld, %la, %lb;", 1 << 63, 6, 0, 3),
        ("mad.lo.s32 %d, %a, %b, %c;", 5, M1, 3, 0xffff_fffe),
        ("mad.wide.u32 %ld, %a, %b, %lc;", M1, 2, 5, 0x2_0000_0003),
        ("mad.hi.u32 %d, %a, %b, %c;", 1 << 31, 4, 9, 11),
        ("div.s32 %d, %a, %b;", (-7i32) as u32 as u64, 2, 0, (-3i32) as u32 as u64),
        ("rem.s32 %d, %a, %b;", (-7i32) as u32 as u64, 2, 0, M1),
        ("div.u64 %ld, %la, %lb;", u64::MAX, 10, 0, 1_844_674_407_370_955_161),
        ("min.s32 %d, %a, %b;", M1, 1, 0, M1),
        ("min.u32 %d, %a, %b;", M1, 1, 0, 1),
        ("max.s64 %ld, %la, %lb;", u64::MAX, 1, 0, 1),
        ("abs.s32 %d, %a;", 0xffff_fffb, 0, 0, 5),
        ("neg.s32 %d, %a;", 5, 0, 0, 0xffff_fffb),
        ("sad.u32 %d, %a, %b, %c;", 3, 10, 100, 107),
        ("mov.b32 {%h1, %h2}, %a; mul.wide.s16 %d, %h1, %h2;", 0x0003_ffff, 0, 0, (-3i32) as u32 as u64),
        ("dp4a.s32.s32 %d, %a, %b, %c;", 0x01_02_03_ff, 0x02_02_02_02, 10, 20),
        ("dp4a.u32.u32 %d, %a, %b, %c;", 0x01_02_03_ff, 0x02_02_02_02, 10, 532),
    ]);
}

#[test]
fn carries_link_words() {
    let sum = "add.cc.u32 %r1, %a, %b; addc.u32 %r2, %c, 0; mov.b64 %ld, {%r1, %r2};";
    table(&[(sum, M1, 1, 5, 0x6_0000_0000), (sum, 1, 1, 5, 0x5_0000_0002)]);
    let difference = "sub.cc.u32 %r1, %a, %b; subc.u32 %r2, %c, 0; mov.b64 %ld, {%r1, %r2};";
    table(&[(difference, 0, 1, 5, 0x4_ffff_ffff), (difference, 3, 1, 5, 0x5_0000_0002)]);
    let product = "mad.lo.cc.u32 %r1, %a, %b, %c; madc.hi.u32 %r2, %a, %b, 0; mov.b64 %ld, {%r1, %r2};";
    table(&[(product, M1, M1, M1, 0xffff_ffff_0000_0000)]);
}

#[test]
fn bits_and_bytes() {
    table(&[
        ("shl.b32 %d, %a, %b;", 1, 31, 0, 1 << 31),
        ("shl.b32 %d, %a, %b;", 1, 32, 0, 0),
        ("shr.u32 %d, %a, %b;", 1 << 31, 31, 0, 1),
        ("shr.s32 %d, %a, %b;", 1 << 31, 40, 0, M1),
        ("shr.s64 %ld, %la, %b;", 1 << 63, 63, 0, u64::MAX),
        ("shr.u64 %ld, %la, %b;", 1 << 63, 64, 0, 0),
        ("shf.l.wrap.b32 %d, %a, %b, %c;", 0x8000_0001, 0x1234_5678, 36, 0x2345_6788),
        ("shf.r.wrap.b32 %d, %a, %b, %c;", 0x8000_0001, 0x1234_5678, 4, 0x8800_0000),
        ("shf.r.clamp.b32 %d, %a, %b, %c;", 1, 0x1234_5678, 99, 0x1234_5678),
        ("popc.b32 %d, %a;", 0xf00f, 0, 0, 8),
        ("popc.b64 %d, %la;", u64::MAX, 0, 0, 64),
        ("clz.b32 %d, %a;", 1, 0, 0, 31),
        ("clz.b32 %d, %a;", 0, 0, 0, 32),
        ("brev.b32 %d, %a;", 0x0000_0001, 0, 0, 1 << 31),
        ("bfind.u32 %d, %a;", 0x0001_0000, 0, 0, 16),
        ("bfind.s32 %d, %a;", M1, 0, 0, M1),
        ("bfind.shiftamt.u32 %d, %a;", 0x0001_0000, 0, 0, 15),
        ("bfe.u32 %d, %a, %b, %c;", 0xabcd_1234, 8, 8, 0x12),
        ("bfe.s32 %d, %a, %b, %c;", 0x0000_8000, 8, 8, 0xffff_ff80),
        ("bfe.s32 %d, %a, %b, %c;", 0x8000_0000, 28, 8, 0xffff_fff8),
        ("bfe.u32 %d, %a, %b, %c;", M1, 28, 8, 0xf),
        ("bfe.u32 %d, %a, %b, %c;", M1, 4, 0, 0),
        ("bfi.b32 %d, %a, %b, 8, 8;", 0x12, M1, 0, 0xffff_12ff),
        ("bfi.b64 %ld, %la, %lb, 32, 32;", 0x12, 7, 0, 0x12_0000_0007),
        ("lop3.b32 %d, %a, %b, %c, 0xca;", 0xf0f0_f0f0, 0x1234_5678, 0x9abc_def0, 0x1a3c_5e70),
        ("lop3.b32 %d, %a, %b, %c, 0x96;", 0xff, 0x0f, 0x33, 0xc3),
        ("prmt.b32 %d, %a, %b, 0x7531;", 0x0302_0100, 0x0706_0504, 0, 0x0705_0301),
        ("prmt.b32 %d, %a, %b, 0x9810;", 0x0000_8005, 0, 0, 0xff00_8005),
        ("prmt.b32.f4e %d, %a, %b, 1;", 0x0302_0100, 0x0706_0504, 0, 0x0403_0201),
        ("prmt.b32.b4e %d, %a, %b, 1;", 0x0302_0100, 0x0706_0504, 0, 0x0607_0001),
        ("prmt.b32.rc8 %d, %a, %b, 2;", 0x0302_0100, 0x0706_0504, 0, 0x0202_0202),
        ("prmt.b32.rc16 %d, %a, %b, 1;", 0x0302_0100, 0x0706_0504, 0, 0x0302_0302),
        ("prmt.b32.ecl %d, %a, %b, 2;", 0x0302_0100, 0x0706_0504, 0, 0x0302_0202),
        ("prmt.b32.ecr %d, %a, %b, 2;", 0x0302_0100, 0x0706_0504, 0, 0x0202_0100),
        ("not.b32 %d, %a;", 0, 0, 0, M1),
        ("cnot.b32 %d, %a;", 0, 0, 0, 1),
        ("mov.b32 {%h1, %h2}, %a; mov.b32 %d, {%h2, %h1};", 0x1122_3344, 0, 0, 0x3344_1122),
        ("mov.b64 {%r1, %r2}, %la; add.u32 %d, %r1, %r2;", 0x5_0000_0003, 0, 0, 8),
    ]);
}

#[test]
fn comparisons_and_selections() {
    table(&[
        ("setp.lt.s32 %p, %a, %b; selp.b32 %d, 1, 2, %p;", M1, 0, 0, 1),
        ("setp.lt.u32 %p, %a, %b; selp.b32 %d, 1, 2, %p;", M1, 0, 0, 2),
        ("setp.lo.u32 %p|%q, %a, %b; selp.b32 %d, 1, 2, %q;", M1, 0, 0, 1),
        ("setp.ne.s32 %q, %c, 0; setp.eq.and.s32 %p, %a, %b, !%q; selp.b32 %d, 1, 2, %p;", 4, 4, 0, 1),
        ("setp.ne.s32 %q, %c, 0; setp.eq.or.s32 %p|%q, %a, %b, %q; selp.b32 %d, 1, 2, %q;", 4, 4, 9, 1),
        ("set.eq.u32.s32 %d, %a, %b;", 3, 3, 0, M1),
        ("set.gt.f32.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(2.0), f(1.0), 0, f(1.0)),
        ("setp.lt.f32 %p, %fa, %fb; selp.b32 %d, 1, 2, %p;", f(f32::NAN), f(1.0), 0, 2),
        ("setp.ltu.f32 %p, %fa, %fb; selp.b32 %d, 1, 2, %p;", f(f32::NAN), f(1.0), 0, 1),
        ("setp.ne.f32 %p, %fa, %fb; selp.b32 %d, 1, 2, %p;", f(f32::NAN), f(1.0), 0, 2),
        ("setp.neu.f32 %p, %fa, %fb; selp.b32 %d, 1, 2, %p;", f(f32::NAN), f(1.0), 0, 1),
        ("setp.num.f32 %p, %fa, %fb; selp.b32 %d, 1, 2, %p;", f(f32::NAN), f(1.0), 0, 2),
        ("slct.b32.s32 %d, %a, %b, %c;", 1, 2, M1, 2),
        ("setp.ge.s32 %p, %a, %b; @%p mov.u32 %d, 7; @!%p mov.u32 %d, 8;", 1, 2, 0, 8),
        ("testp.finite.f32 %p, %fa; selp.b32 %d, 1, 2, %p;", f(f32::INFINITY), 0, 0, 2),
    ]);
}

#[test]
fn single_precision_rounds_as_asked() {
    let tiny = 2f32.powi(-30);
    let cases = [
        ("add.rn.f32", f(1.0)),
        ("add.rz.f32", f(1.0)),
        ("add.rp.f32", f(1.0 + f32::EPSILON)),
        ("add.rm.f32", f(1.0)),
        ("sub.rz.f32", f(1.0 - f32::EPSILON / 2.0)),
        ("sub.rn.f32", f(1.0)),
    ];
    for (name, want) in cases {
        table(&[(&format!("{name} %fd, %fa, %fb; mov.b32 %d, %fd;"), f(1.0), f(tiny), 0, want)]);
    }
    table(&[
        ("mul.rz.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", 0x3f80_0001, 0x3f80_0001, 0, 0x3f80_0002),
        ("mul.rp.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", 0x3f80_0001, 0x3f80_0001, 0, 0x3f80_0003),
        (
            "fma.rn.f32 %fd, %fa, %fb, %fc; mov.b32 %d, %fd;",
            0x3f80_0001,
            0x3f80_0001,
            f(-1.0),
            f(2f32.powi(-22) + 2f32.powi(-46)),
        ),
        ("add.sat.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(3.0), f(1.0), 0, f(1.0)),
        ("add.ftz.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", 1, 1, 0, 0),
        ("add.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", 1, 1, 0, 2),
        ("add.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(f32::INFINITY), f(f32::NEG_INFINITY), 0, 0x7fff_ffff),
        ("mul.rn.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(-0.0), f(5.0), 0, f(-0.0)),
        ("div.rn.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(1.0), f(3.0), 0, 0x3eaa_aaab),
        ("div.full.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(6.0), f(3.0), 0, f(2.0)),
        ("sqrt.rn.f32 %fd, %fa; mov.b32 %d, %fd;", f(2.0), 0, 0, 0x3fb5_04f3),
        ("rcp.approx.f32 %fd, %fa; mov.b32 %d, %fd;", f(4.0), 0, 0, f(0.25)),
        ("rsqrt.approx.f32 %fd, %fa; mov.b32 %d, %fd;", f(16.0), 0, 0, f(0.25)),
        ("ex2.approx.ftz.f32 %fd, %fa; mov.b32 %d, %fd;", f(-3.0), 0, 0, f(0.125)),
        ("lg2.approx.f32 %fd, %fa; mov.b32 %d, %fd;", f(8.0), 0, 0, f(3.0)),
        ("min.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(f32::NAN), f(3.0), 0, f(3.0)),
        ("max.NaN.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(f32::NAN), f(3.0), 0, 0x7fff_ffff),
        ("max.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(-0.0), f(0.0), 0, f(0.0)),
        ("abs.f32 %fd, %fa; mov.b32 %d, %fd;", f(-3.0), 0, 0, f(3.0)),
        ("copysign.f32 %fd, %fa, %fb; mov.b32 %d, %fd;", f(-3.0), f(2.0), 0, f(-2.0)),
    ]);
}

#[test]
fn halves_and_doubles() {
    table(&[
        ("add.rn.bf16x2 %d, %a, %b;", 0x3f80_4000, 0x3f80_3f80, 0, 0x4000_4040),
        ("mul.rn.f16x2 %d, %a, %b;", 0x3c00_4000, 0x4200_c000, 0, 0x4200_c400),
        ("fma.rn.bf16x2 %d, %a, %b, %c;", 0x3f81_3f81, 0x3f81_3f81, 0xbf82_bf82, 0x3880_3880),
        ("max.bf16x2 %d, %a, %b;", 0x3f80_c000, 0x4000_bf80, 0, 0x4000_bf80),
        ("neg.bf16x2 %d, %a;", 0x3f80_bf80, 0, 0, 0xbf80_3f80),
        ("fma.rn.relu.f16x2 %d, %a, %b, %c;", 0x3c00_3c00, 0xbc00_3c00, 0, 0x0000_3c00),
        ("add.f64 %ld, %la, %lb;", d(0.1), d(0.2), 0, d(0.30000000000000004)),
        ("fma.rn.f64 %ld, %la, %lb, %lc;", d(3.0), d(0.5), d(-1.0), d(0.5)),
        ("div.rn.f64 %ld, %la, %lb;", d(1.0), d(3.0), 0, d(1.0 / 3.0)),
    ]);
}

#[test]
fn conversions() {
    let e4m3 = "cvt.rn.satfinite.e4m3x2.f32 %h1, %fa, %fb; cvt.u32.u16 %d, %h1;";
    table(&[
        ("cvt.s64.s32 %ld, %a;", M1, 0, 0, u64::MAX),
        ("cvt.u64.u32 %ld, %a;", M1, 0, 0, M1),
        ("cvt.u16.u32 %h1, %a; cvt.u32.u16 %d, %h1;", 0x1_2345, 0, 0, 0x2345),
        ("cvt.s8.s32 %h1, %a; cvt.s32.s16 %d, %h1;", 0x1280, 0, 0, 0xffff_ff80),
        ("cvt.sat.u8.s32 %d, %a;", 300, 0, 0, 255),
        ("cvt.sat.u8.s32 %d, %a;", M1, 0, 0, 0),
        ("cvt.rn.f32.s32 %fd, %a; mov.b32 %d, %fd;", 16_777_217, 0, 0, f(16_777_216.0)),
        ("cvt.rp.f32.s32 %fd, %a; mov.b32 %d, %fd;", 16_777_217, 0, 0, f(16_777_218.0)),
        ("cvt.rn.f32.u64 %fd, %la; mov.b32 %d, %fd;", u64::MAX, 0, 0, f(2f32.powi(64))),
        ("cvt.rzi.s32.f32 %d, %fa;", f(-2.7), 0, 0, (-2i32) as u32 as u64),
        ("cvt.rni.s32.f32 %d, %fa;", f(2.5), 0, 0, 2),
        ("cvt.rpi.s32.f32 %d, %fa;", f(2.1), 0, 0, 3),
        ("cvt.rmi.s32.f32 %d, %fa;", f(-2.1), 0, 0, (-3i32) as u32 as u64),
        ("cvt.rzi.u32.f32 %d, %fa;", f(-5.0), 0, 0, 0),
        ("cvt.rzi.s32.f32 %d, %fa;", f(1e20), 0, 0, 0x7fff_ffff),
        ("cvt.rzi.s32.f32 %d, %fa;", f(f32::NAN), 0, 0, 0),
        ("cvt.rmi.f32.f32 %fd, %fa; mov.b32 %d, %fd;", f(-1.5), 0, 0, f(-2.0)),
        ("cvt.sat.f32.f32 %fd, %fa; mov.b32 %d, %fd;", f(1.5), 0, 0, f(1.0)),
        ("cvt.rn.f32.f64 %fd, %la; mov.b32 %d, %fd;", d(0.1), 0, 0, f(0.1)),
        ("cvt.f64.f32 %ld, %fa;", f(0.5), 0, 0, d(0.5)),
        ("cvt.rn.f16.f32 %h1, %fa; cvt.u32.u16 %d, %h1;", f(65520.0), 0, 0, 0x7c00),
        ("cvt.rz.f16.f32 %h1, %fa; cvt.u32.u16 %d, %h1;", f(65535.0), 0, 0, 0x7bff),
        ("cvt.rn.bf16x2.f32 %d, %fa, %fb;", f(1.0), f(-2.0), 0, 0x3f80_c000),
        ("cvt.rn.relu.bf16x2.f32 %d, %fa, %fb;", f(1.0), f(-2.0), 0, 0x3f80_0000),
        ("mov.b32 {%h1, %h2}, %a; cvt.f32.bf16 %fd, %h2; mov.b32 %d, %fd;", 0xc000_0000, 0, 0, f(-2.0)),
        // The first source goes to the upper byte.
        (e4m3, f(1.0), f(-2.0), 0, 0x38c0),
        (e4m3, f(1000.0), f(-1e9), 0, 0x7efe),
        (e4m3, f(f32::NAN), f(0.001953125), 0, 0x7f01),
        (e4m3, f(17.0), f(19.0), 0, 0x585a),
        ("cvt.u16.u32 %h1, %a; cvt.rn.f16x2.e4m3x2 %d, %h1;", 0x38c0, 0, 0, 0x3c00_c000),
        ("cvt.rn.satfinite.e4m3x2.f16x2 %h1, %a; cvt.u32.u16 %d, %h1;", 0x3c00_c000, 0, 0, 0x38c0),
    ]);
}

#[test]
fn special_registers_tell_places() {
    assert_eq!(lanes("mov.u32 %d, %laneid;", [&[], &[], &[]]), (0..32).collect::<Vec<u64>>());
    assert_eq!(lanes("mov.u32 %d, %lanemask_lt;", [&[], &[], &[]])[5], 31);
    assert_eq!(lanes("mov.u32 %d, %lanemask_ge;", [&[], &[], &[]])[31], 1 << 31);
    assert_eq!(one("mov.u32 %d, %ntid.x;", 0, 0, 0), 32);
    assert_eq!(one("mov.u32 %d, %nctaid.y;", 0, 0, 0), 1);
}
