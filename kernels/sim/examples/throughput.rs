//! How fast the simulator is on one core: lane instructions per second of three kernels, each the best of a few
//! runs.
//!
//! `cargo run --release -p fireq-sim --example throughput`

use std::time::Instant;

use fireq_sim::{Launch, Memory, Module, Options, Params, Stats, Swizzle, TensorMap, run};

/// A loop of integer and floating-point arithmetic without memory.
const ARITHMETIC: &str = "
    .version 8.0
    .target sm_90a
    .address_size 64
    .visible .entry arithmetic(.param .u64 out) {
        .reg .b32 %r<6>; .reg .b64 %rd<3>; .reg .f32 %f<4>; .reg .pred %p;
        mov.u32 %r1, %tid.x;
        mov.u32 %r2, 0;
        cvt.rn.f32.u32 %f1, %r1;
    LOOP:
        fma.rn.f32 %f2, %f1, %f1, %f2;
        mul.f32 %f1, %f1, 0f3F000000;
        shl.b32 %r3, %r2, 3;
        lop3.b32 %r1, %r1, %r2, %r3, 0x96;
        add.u32 %r2, %r2, 1;
        setp.lt.u32 %p, %r2, 2000;
        @%p bra LOOP;
        ld.param.u64 %rd1, [out];
        st.global.u32 [%rd1], %r1;
        ret;
    }";

const RUNS: usize = 9;

type Setup = fn(&mut Memory) -> Launch;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ptx/");
    let text = |name: &str| std::fs::read_to_string(format!("{folder}{name}.ptx"));
    let cases: [(String, Setup); 3] =
        [(ARITHMETIC.into(), arithmetic), (text("norm")?, norm), (text("gemm")?, gemm)];
    for (text, setup) in cases {
        let module = Module::parse(&text)?;
        let (mut best, mut name, mut stats) = (f64::INFINITY, String::new(), Stats::default());
        for _ in 0..RUNS {
            let mut memory = Memory::new();
            let launch = setup(&mut memory);
            let start = Instant::now();
            stats = run(&module, &launch, &mut memory, &Options::default())?;
            best = best.min(start.elapsed().as_secs_f64());
            name = launch.kernel;
        }
        println!(
            "{name:10}  {:5.1} million lane instructions/s  {:6.1} million tensor MACs/s  {best:.3} s",
            stats.lane_instructions as f64 / best / 1e6,
            stats.tensor_macs as f64 / best / 1e6,
        );
    }
    Ok(())
}

fn launch(kernel: &str, grid: [u32; 3], threads: u32, params: Vec<u8>) -> Launch {
    Launch { kernel: kernel.into(), grid, block: [threads, 1, 1], cluster: [1; 3], dynamic_shared: 0, params }
}

fn arithmetic(memory: &mut Memory) -> Launch {
    let out = memory.alloc("out", 4);
    launch("arithmetic", [4, 1, 1], 256, Params::new().u64(out).build())
}

/// 128 rows of 4096.
fn norm(memory: &mut Memory) -> Launch {
    let x = memory.alloc_with("x", &vec![0x3f; 128 * 4096 * 2]);
    let weight = memory.alloc_with("weight", &vec![0x3f; 4096 * 4]);
    let (q, scale) = (memory.alloc("q", 128 * 4096), memory.alloc("scale", 128 * 4));
    launch("rms_norm", [128, 1, 1], 128, Params::new().u64(x).u64(weight).u64(q).u64(scale).u32(4096).build())
}

/// 256 × 256 × 1024.
fn gemm(memory: &mut Memory) -> Launch {
    let map = |memory: &mut Memory, name: &str| TensorMap {
        address: memory.alloc_with(name, &vec![0x38; 256 * 1024]),
        rank: 2,
        element_bytes: 1,
        dims: [1024, 256, 0, 0, 0],
        strides: [1024, 0, 0, 0],
        block: [128, 64, 0, 0, 0],
        swizzle: Swizzle::B128,
    };
    let maps = ["a", "b"].map(|name| map(memory, name).encode().expect("a map within the limits"));
    let out = memory.alloc("out", 256 * 256 * 4);
    let params = Params::new().bytes(64, &maps[0]).bytes(64, &maps[1]).u64(out).u32(256).u32(256).u32(1024);
    Launch { dynamic_shared: 4 * 64 * 128, ..launch("gemm", [4, 4, 1], 160, params.build()) }
}
