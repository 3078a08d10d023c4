//! Kernels without quantization: rows of tables, element-wise operations, cosines and sines, logits.

use fireq_ir::DType;
use fireq_kernels::cuda::{Elementwise, elementwise, gather, logits, params, rope_table};
use fireq_tests::relative_error;

use super::device::device;
use super::oracle::{Case, parts};
use super::rows::dtype_of;

#[test]
fn rows_of_tables_are_the_interpreters() {
    let Some(mut gpu) = device() else { return };
    for (cols, dtype) in [
        (64, "bf16"),
        (37, "f16"),
        (96, "f32"),
        (4096, "bf16"),
        (50, "bf16"),
        (257, "bf16"),
        (130, "f32"),
        (576, "bf16"),
    ] {
        let body = format!(
            "%0 = input {{name=\"tokens\"}} : i32[T]\n%1 = const {{name=\"table\"}} : {dtype}[50,{cols}]\n\
             %2 = gather %1, %0 : f32[T,{cols}]\nreturn %2"
        );
        let case = Case::new(&body, [5, 0, 1]);
        let out = gpu.space("out", 4 * 5 * cols);
        let (table, index) =
            (gpu.put("table", &case.constant("table")), gpu.put("index", &case.input("tokens")));
        gpu.launch(
            &gather(cols, dtype_of(dtype)).unwrap(),
            5,
            0,
            &params::Gather { table, index, out, rows: 50 },
        );
        assert_eq!(gpu.f32s(out, 5 * cols), case.output(0).to_f32(), "{dtype}[{cols}]");
    }
}

#[test]
fn elementwise_operations_are_the_interpreters() {
    let Some(mut gpu) = device() else { return };
    for op in [Elementwise::Add, Elementwise::Mul, Elementwise::Bias, Elementwise::Scale] {
        for cols in [64, 37, 172, 257, 1030] {
            let tokens = 3;
            let channels = matches!(op, Elementwise::Bias | Elementwise::Scale);
            let b = if channels {
                format!("const {{name=\"b\"}} : bf16[{cols}]")
            } else {
                format!("input {{name=\"b\"}} : f32[T,{cols}]")
            };
            let body = format!(
                "%0 = input {{name=\"a\"}} : f32[T,{cols}]\n%1 = {b}\n%2 = {} %0, %1 : f32[T,{cols}]\nreturn %2",
                op.mnemonic()
            );
            let case = Case::new(&body, [tokens, 0, 1]);
            let b = if channels { case.constant("b") } else { case.input("b") };
            let out = gpu.space("out", 4 * tokens * cols);
            let (a, b) = (gpu.put("a", &case.input("a")), gpu.put("b", &b));
            let dtype = if channels { DType::BF16 } else { DType::F32 };
            let params = params::Elementwise { a, b, out, elements: (tokens * cols) as u64 };
            gpu.launch(&elementwise(op, cols, dtype).unwrap(), tokens, 0, &params);
            assert_eq!(gpu.f32s(out, tokens * cols), case.output(0).to_f32(), "{} of {cols}", op.mnemonic());
        }
    }
}

#[test]
fn cosines_and_sines_are_the_interpreters_for_long_contexts() {
    let Some(mut gpu) = device() else { return };
    for head in [64, 80, 128] {
        let positions: Vec<i32> = (0..7).chain([100, 4095, 8191, 131_071, 1_048_575]).collect();
        let inv_freq: Vec<f32> = (0..head / 2).map(|i| 1e4f32.powf(-2.0 * i as f32 / head as f32)).collect();
        let bytes = |p: &i32| p.to_le_bytes();
        let table = gpu.space("angles", 4 * positions.len() * head);
        let params = params::RopeTable {
            positions: gpu.put("positions", &positions.iter().flat_map(bytes).collect::<Vec<_>>()),
            inv_freq: gpu.put_f32("inv_freq", &inv_freq),
            table,
            tokens: positions.len() as u32,
        };
        gpu.launch(&rope_table(head).unwrap(), positions.len(), 0, &params);
        let found = gpu.f32s(table, positions.len() * head);
        for (position, row) in positions.iter().zip(found.chunks(head)) {
            let angles = inv_freq.iter().map(|f| f64::from(*position as f32 * f));
            let expected: Vec<f32> =
                angles.clone().map(|a| a.cos() as f32).chain(angles.map(|a| a.sin() as f32)).collect();
            assert_eq!(row, expected, "position {position}, heads of {head}");
        }
    }
}

#[test]
fn logits_are_the_interpreters_to_the_order_of_sums() {
    let Some(mut gpu) = device() else { return };
    for (cols, channels, dtype) in [
        (64, 33, "bf16"),
        (37, 3, "bf16"),
        (1024, 130, "bf16"),
        (96, 50, "f32"),
        (40, 7, "f16"),
        (576, 257, "bf16"),
        (257, 257, "bf16"),
        (130, 1, "f32"),
        (64, 33, "e4m3<row:f32>"),
        (172, 257, "e4m3<row:f32>"),
        (1040, 66, "e4m3<row:f32>"),
        (37, 3, "e4m3<row:f32>"),
        (98, 5, "e4m3<row:f32>"),
    ] {
        for tokens in [1, 3, 9] {
            let body = format!(
                "%0 = input {{name=\"x\"}} : f32[T,{cols}]\n%1 = const {{name=\"w\"}} : {dtype}[{channels},{cols}]\n\
                 %2 = linear %0, %1 : f32[T,{channels}]\nreturn %2"
            );
            let case = Case::new(&body, [tokens, 0, 1]);
            let out = gpu.space("out", 4 * tokens * channels);
            let weight = parts(&case.constant_tensor("w"));
            let params = params::Logits {
                x: gpu.put("x", &case.input("x")),
                weight: gpu.put("weight", &weight[0]),
                scales: weight.get(1).map_or(0, |scales| gpu.put("scales", scales)),
                out,
                tokens: tokens as u32,
                channels: channels as u32,
            };
            let at_once = if tokens == 1 { 1 } else { 8 };
            gpu.launch(&logits(cols, channels, dtype_of(dtype), at_once).unwrap(), tokens, 0, &params);
            let error = relative_error(&case.output(0).to_f32(), &gpu.f32s(out, tokens * channels));
            assert!(error < 1e-6, "{channels}x{cols} {dtype}, {tokens} tokens: {error:.1e}");
        }
    }
}
