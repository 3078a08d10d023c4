//! The text of one unit of every kind, as it is compiled.

use fireq_ir::{DType, Fit, Format, Type};
use fireq_kernels::cuda::cost::regimes;
use fireq_kernels::cuda::cost_fp8::{CTAS, choose};
use fireq_kernels::cuda::{
    Addend, DecodeAttention, Elementwise, Linear, LinearConfig, LinearFp8, LinearFp8Config, Output, Qkv,
    Schedule, Unit, elementwise, gather, gather_pages, logits, norm_quantize, quantize, rms_norm, rope_table,
    sample, swiglu_quantize,
};

fn check(name: &str, unit: &Unit) {
    let text = format!("{}\n// {}\n// {}\n// {}\n", unit.text, unit.shape, unit.config, unit.reason);
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
    assert!(unit.source().is_ok());
}

#[test]
fn units_are_instantiations() {
    check("gather", &gather(4096, DType::BF16).unwrap());
    check("rms_norm", &rms_norm(128, DType::BF16).unwrap());
    check("norm_quantize", &norm_quantize(4096, DType::BF16).unwrap());
    check("quantize", &quantize(4096).unwrap());
    check("swiglu_quantize", &swiglu_quantize(14336).unwrap());
    check("add", &elementwise(Elementwise::Add, 4096, DType::F32).unwrap());
    check("bias", &elementwise(Elementwise::Bias, 6144, DType::BF16).unwrap());
    check("rope_table", &rope_table(128).unwrap());
    let clipped = Fit::Clipped;
    let qkv = Qkv { q_heads: 32, kv_heads: 8, head: 128, k_fit: clipped, v_fit: clipped, page: 64 };
    check("qkv", &qkv.unit().unwrap());
    let attention = DecodeAttention { heads: 32, kv_heads: 8, head: 128, page: 64 };
    check("decode_attention", &attention.unit().unwrap());
    check("combine", &attention.combine().unwrap());
    check("gather_pages", &gather_pages(attention.pages()).unwrap());
    check("logits", &logits(4096, 128_256, DType::BF16, 8).unwrap());
    check("logits_e4m3", &logits(4096, 128_256, DType::E4M3, 1).unwrap());
    check("sample", &sample(128_256));
    let o = Linear { channels: 4096, cols: 4096, group: 128, addend: Addend::Residual, output: Output::F32 };
    check("decode_weight", &o.decode_unit("a test".into()).unwrap());
    let many = LinearFp8::from(o);
    check("linear_fp8_add", &many.unit(&choose(&many, 16384).0, CTAS, "a test".into()).unwrap());
    let few = regimes(&o)[0];
    check("linear_add", &o.unit(&few.config, few.reason()).unwrap());
    let gated = Linear { output: Output::Swiglu, ..Linear::plain(28672, 4096, 128) };
    let many = regimes(&gated).pop().unwrap();
    check("linear_swiglu", &gated.unit(&many.config, many.reason()).unwrap());
    let qkv =
        Linear { addend: Addend::Bias(DType::BF16), output: Output::Bf16, ..Linear::plain(6144, 4096, 128) };
    let few = regimes(&qkv)[0];
    let (config, _) = choose(&LinearFp8::from(gated), 4096);
    check("linear_fp8_swiglu", &LinearFp8::from(gated).unit(&config, CTAS, "a test".into()).unwrap());
    check("linear_bias_bf16_to_bf16", &qkv.unit(&few.config, few.reason()).unwrap());
}

#[test]
fn what_no_unit_can_hold_is_refused() {
    let error = norm_quantize(1 << 20, DType::BF16).unwrap_err().to_string();
    assert!(error.contains("do not fit into registers"), "{error}");
    let wide = Qkv { q_heads: 1, kv_heads: 1, head: 512, k_fit: Fit::Absmax, v_fit: Fit::Absmax, page: 64 };
    assert!(wide.unit().unwrap_err().to_string().contains("heads of 512 channels"));
    assert!(elementwise(Elementwise::Add, 4, DType::BF16).is_err());
    assert!(gather(4, DType::I32).is_err());
}

/// Rows of odd lengths do not begin at multiples of 16 bytes: units for them have names of their own, and others share one.
#[test]
fn products_write_as_wide_as_rows_allow() {
    let config = LinearConfig {
        tokens: 8,
        warpgroups: 1,
        stages: 4,
        steps: 2,
        split: 1,
        cluster: 1,
        promotion: 0,
        band: 0,
    };
    let unit = |output, channels, cols| {
        let linear = Linear { output, addend: Addend::Residual, ..Linear::plain(channels, cols, 128) };
        let unit = linear.unit(&config, String::new()).unwrap();
        let epilogue =
            unit.text.lines().find_map(|line| line.trim().strip_prefix("linear::run<Tile, ")).unwrap();
        (unit.name, epilogue.trim_end_matches(">(p);").to_string())
    };
    let named = |suffix: &str| format!("linear_add{suffix}_g128_t8_w1_s4x2_k1");
    for (output, channels, suffix, epilogue) in [
        (Output::F32, 576, "", "Plain<Residual, float>"),
        (Output::F32, 344, "", "Plain<Residual, float>"),
        (Output::F32, 258, "_by2", "Plain<Residual, float, 2>"),
        (Output::F32, 257, "_by1", "Plain<Residual, float, 1>"),
        (Output::Bf16, 344, "_to_bf16", "Plain<Residual, bf16>"),
        (Output::Bf16, 172, "_to_bf16_by4", "Plain<Residual, bf16, 4>"),
        (Output::Bf16, 257, "_to_bf16_by1", "Plain<Residual, bf16, 1>"),
    ] {
        for cols in [576, 172, 130, 1] {
            assert_eq!(unit(output, channels, cols), (named(suffix), epilogue.into()), "{channels} × {cols}");
        }
    }
}

/// Descriptors say where rows begin and which columns exist.
#[test]
fn tokens_of_odd_lengths_lie_in_rows_of_whole_16_bytes() {
    let config = LinearConfig {
        tokens: 8,
        warpgroups: 1,
        stages: 4,
        steps: 2,
        split: 1,
        cluster: 1,
        promotion: 0,
        band: 0,
    };
    for (cols, stride) in [(576, 576), (172, 176), (130, 144), (1, 16)] {
        let x = Linear::plain(64, cols, 128).x(&config, 5);
        assert_eq!((x.sizes, x.strides), (vec![cols as u64, 5], vec![stride]));
    }
}

#[test]
fn products_that_no_kernel_does_are_refused() {
    let refused = |rows, cols, format: &Format| {
        Linear::of(&Type::f32(rows, cols).with_format(format), Addend::Nothing, Output::F32)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(0, 64, &Format::weight(64)).contains("0 output channels of 64"));
    assert!(refused(8, 256, &Format::weight(32)).contains("i4<g32:e4m3,row:f32>[8,256]: INT4 in groups"));
    assert!(refused(8, 256, &Format::activation()).contains("INT4 in groups of 64 or 128"));
    let short =
        Linear::of(&Type::f32(8, 48).with_format(&Format::weight(64)), Addend::Bias(DType::F32), Output::F32)
            .unwrap();
    assert_eq!((short.group, short.steps()), (128, 1), "a short row is one group");

    let config = LinearConfig {
        tokens: 256,
        warpgroups: 1,
        stages: 2,
        steps: 2,
        split: 1,
        cluster: 1,
        promotion: 0,
        band: 0,
    };
    let unit = |output, channels, config: &LinearConfig| {
        let linear = Linear { output, ..Linear::plain(channels, 256, 128) };
        linear.unit(config, String::new()).unwrap_err().to_string()
    };
    assert!(unit(Output::Swiglu, 192, &config).contains("96 gates: multiples of 64"));
    assert!(unit(Output::Swiglu, 128, &config).contains("in one warpgroup"));
    let promoted = LinearConfig { promotion: 4, ..config };
    assert!(unit(Output::F32, 64, &promoted).contains("promoted sums of 256 tokens"));
    let odd = LinearConfig { tokens: 8, promotion: 3, ..config };
    assert!(unit(Output::F32, 64, &odd).contains("every 3 steps in stages of 2"));
    let decoded = |output, schedule, promotion| {
        let linear = LinearFp8::from(Linear { output, ..Linear::plain(128, 256, 128) });
        let config = LinearFp8Config { tokens: 256, stages: 4, cluster: 1, promotion, schedule };
        linear.unit(&config, 132, String::new()).unwrap_err().to_string()
    };
    assert!(decoded(Output::Swiglu, Schedule::Alternately, 0).contains("gates and ups in turn"));
    assert!(decoded(Output::F32, Schedule::Together, 4).contains("two sets of sums of 256 tokens"));
}
