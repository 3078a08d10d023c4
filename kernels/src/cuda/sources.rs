//! The CUDA building blocks, embedded as text.

/// The layers of the building blocks, lowest first: a file includes only files of lower layers.
pub const LAYERS: [&str; 6] = ["ptx", "tile", "quant", "mainloop", "epilogue", "kernel"];

macro_rules! sources {
    ($($path:literal)*) => {
        /// Every building block: its path below `kernels/cuda`, and its text.
        pub const SOURCES: &[(&str, &str)] = &[$(($path, include_str!(concat!("../../cuda/", $path)))),*];
    };
}

sources! {
    "ptx/types.cuh"
    "ptx/memory.cuh"
    "ptx/convert.cuh"
    "ptx/launch.cuh"
    "ptx/math.cuh"
    "ptx/warp.cuh"
    "ptx/barrier.cuh"
    "ptx/bulk.cuh"
    "ptx/cluster.cuh"
    "ptx/halves.cuh"
    "ptx/wgmma.cuh"
    "ptx/wgmma_shared.cuh"
    "ptx/wgmma_attention.cuh"
    "tile/angle.cuh"
    "tile/chunk.cuh"
    "tile/decode_attention.cuh"
    "tile/group.cuh"
    "tile/linear.cuh"
    "tile/noise.cuh"
    "tile/linear_fp8.cuh"
    "tile/page.cuh"
    "tile/prefill.cuh"
    "tile/raster.cuh"
    "tile/ring.cuh"
    "tile/reduce.cuh"
    "tile/row.cuh"
    "quant/column_softmax.cuh"
    "quant/e4m3.cuh"
    "quant/int4.cuh"
    "quant/page.cuh"
    "quant/probabilities.cuh"
    "quant/table.cuh"
    "mainloop/decode_attention.cuh"
    "mainloop/dot.cuh"
    "mainloop/fp8.cuh"
    "mainloop/head.cuh"
    "mainloop/int4_fp8.cuh"
    "mainloop/prefill.cuh"
    "mainloop/prefill_source.cuh"
    "mainloop/row.cuh"
    "epilogue/heads.cuh"
    "epilogue/linear.cuh"
    "epilogue/page.cuh"
    "epilogue/prefill.cuh"
    "epilogue/row.cuh"
    "kernel/combine.cuh"
    "kernel/decode_attention.cuh"
    "kernel/decode_weight.cuh"
    "kernel/elementwise.cuh"
    "kernel/gather.cuh"
    "kernel/gather_pages.cuh"
    "kernel/linear.cuh"
    "kernel/linear_fp8.cuh"
    "kernel/logits.cuh"
    "kernel/norm_quantize.cuh"
    "kernel/prefill.cuh"
    "kernel/qkv.cuh"
    "kernel/quantize.cuh"
    "kernel/rms_norm.cuh"
    "kernel/rope_table.cuh"
    "kernel/sample.cuh"
    "kernel/swiglu_quantize.cuh"
}

/// The text of a building block.
pub fn source(path: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let mut found = 0;
        for layer in LAYERS {
            for entry in std::fs::read_dir(root.join(layer)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(source(&format!("{layer}/{name}")).is_some(), "{layer}/{name} is not embedded");
                found += 1;
            }
        }
        assert_eq!(found, SOURCES.len());
    }

    #[test]
    fn files_fit_in_a_head() {
        for (path, text) in SOURCES {
            assert!(text.lines().count() <= 250, "{path} has more than 250 lines");
        }
    }
}
