//! Kernels with damaged operands run into faults, never into panics.

mod fixture;

use fireq_sim::{Launch, Memory, Module, Options, Params, Swizzle, TensorMap, Timing, run};
use fixture::ptx;
use proptest::prelude::*;

/// Parameters that suit any fixture: a tensor map, then pointers and counts.
fn params(memory: &mut Memory, bytes: usize) -> Vec<u8> {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| memory.alloc_with(name, &vec![0x11; 1 << 16]));
    let mut params = Params::new().u64(a).u64(b).u64(c).u64(d).u32(64).build();
    if bytes > 64 {
        let map = TensorMap {
            address: a,
            rank: 2,
            element_bytes: 1,
            dims: [128, 64, 0, 0, 0],
            strides: [128, 0, 0, 0],
            block: [128, 64, 0, 0, 0],
            swizzle: Swizzle::B128,
        };
        let map = map.encode().unwrap();
        params = Params::new().bytes(64, &map).bytes(64, &map).u64(a).u32(64).u32(64).u32(128).build();
    }
    params.resize(bytes, 0);
    params
}

/// Name of the fixture, of its kernel, bytes of its parameters, threads, CTAs.
const KERNELS: [(&str, &str, usize, u32, u32); 6] = [
    ("norm", "rms_norm", 36, 128, 1),
    ("pipeline", "pipeline", 20, 160, 1),
    ("gemm", "gemm", 276, 160, 1),
    ("generic", "narrow", 24, 128, 1),
    ("generic", "transposed", 24, 128, 1),
    ("cluster", "cluster", 16, 64, 2),
];

fn attempt(
    text: &str,
    (_, kernel, bytes, threads, ctas): (&str, &str, usize, u32, u32),
    timing: Timing,
) -> bool {
    let Ok(module) = Module::parse(text) else { return false };
    let mut memory = Memory::new();
    let params = params(&mut memory, bytes);
    let launch = Launch {
        kernel: kernel.into(),
        grid: [ctas, 1, 1],
        block: [threads, 1, 1],
        cluster: [1; 3],
        dynamic_shared: if kernel == "gemm" { 1 << 15 } else { 0 },
        params,
    };
    let options = Options { seed: 1, timing, budget: 20_000, resident: 2, ..Options::default() };
    run(&module, &launch, &mut memory, &options).is_ok()
}

#[test]
fn undamaged_kernels_run() {
    for case in KERNELS {
        assert!(attempt(&ptx(case.0), case, Timing::Late), "{}", case.1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn damaged_kernels_do_not_panic(
        case in prop::sample::select(KERNELS.to_vec()),
        late: bool,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..3), 1..4),
    ) {
        let text = ptx(case.0);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (at, other, kind) in edits {
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match kind {
                // A digit of a register or of a constant changes.
                0 => {
                    let digit = lines[at].rfind(|c: char| c.is_ascii_digit());
                    if let Some(i) = digit {
                        lines[at].replace_range(i..=i, &(other % 10).to_string());
                    }
                }
                1 => lines.swap(at, other),
                _ => lines[at].clear(),
            }
        }
        attempt(&lines.join("\n"), case, if late { Timing::Late } else { Timing::Early });
    }
}
