//! Single instructions: results derived here from their definitions, found by the simulator, and recorded for a GPU, which
//! so confirms or refutes both. Where the definition leaves no freedom, every bit counts.

mod bits;
mod math;
mod matrix;
mod tma;
mod warp;
mod wgmma;

use fireq_ir::e4m3;
use fireq_sim::{Launch, Params};
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::device::{Device, device};

/// Inputs of a test, as many of each: a multiple of 256.
struct Inputs {
    a: Vec<u64>,
    b: Vec<u64>,
    c: Vec<u64>,
}

impl Inputs {
    /// Random bits; every `n`th of each is one of the edges, in all combinations of neighbours.
    fn random(seed: u64, count: usize, edges: &[u64]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut inputs = Self { a: vec![], b: vec![], c: vec![] };
        for i in 0..count {
            let mut pick = |period: usize| match edges.get(i / period % (2 * edges.len()).max(1)) {
                Some(edge) => *edge,
                None => rng.next_u64(),
            };
            inputs.a.push(pick(1));
            inputs.b.push(pick(3));
            inputs.c.push(pick(7));
        }
        inputs
    }

    fn of(&self, i: usize) -> [u64; 3] {
        [self.a[i], self.b[i], self.c[i]]
    }
}

fn bytes(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// What a kernel of a file of single instructions makes of the inputs; the file's kernels read 64 bits and write 64.
fn lanes(gpu: &mut Device, (unit, text): (&str, &str), kernel: &str, inputs: &Inputs) -> Vec<u64> {
    let [a, b, c] =
        [("a", &inputs.a), ("b", &inputs.b), ("c", &inputs.c)].map(|(n, x)| gpu.put(n, &bytes(x)));
    let d = gpu.space("d", 8 * inputs.a.len());
    let launch = Launch {
        kernel: kernel.into(),
        grid: [inputs.a.len() as u32 / 256, 1, 1],
        block: [256, 1, 1],
        cluster: [1; 3],
        dynamic_shared: 0,
        params: Params::new().u64(a).u64(b).u64(c).u64(d).build(),
    };
    gpu.launch_text(
        &format!("conformance_{unit}"),
        &format!("{}{text}", include_str!("conformance/lanes.cu")),
        &launch,
    );
    let found = gpu.bytes(d, 8 * inputs.a.len());
    found.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Compares a kernel with what every thread should find.
fn check(
    gpu: &mut Device,
    file: (&str, &str),
    kernel: &str,
    inputs: &Inputs,
    want: impl Fn([u64; 3]) -> u64,
) {
    for (i, found) in lanes(gpu, file, kernel, inputs).into_iter().enumerate() {
        let (of, want) = (inputs.of(i), want(inputs.of(i)));
        assert_eq!(found, want, "{kernel} of {of:x?}: {found:#x} instead of {want:#x}");
    }
}

/// Zeros, the ends of the range, subnormal numbers, infinities, NaN, and ties of E4M3, bf16 and f16.
const EDGES: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    448.0,
    464.0,
    465.0,
    -1e9,
    0.0009765625,
    1.0625,
    1.1875,
    1.0 + 1.0 / 256.0,
    65520.0,
    2049.0,
];

fn edges() -> Vec<u64> {
    EDGES.iter().map(|x| x.to_bits().into()).collect()
}

const CONVERT: (&str, &str) = ("convert", include_str!("conformance/convert.cu"));

fn float(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Bits of a result, of which NaN has but one.
fn f32_bits(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits().into() }
}

/// The nearest code, the even one of two, by looking at them all; what is too large is the largest.
fn nearest_e4m3(x: f32) -> u64 {
    if x.is_nan() {
        return 0x7f;
    }
    let error = |code: &u8| (f64::from(e4m3::decode(*code)) - f64::from(x.abs().min(448.0))).abs();
    let best = (0..0x7fu8).min_by(|a, b| error(a).total_cmp(&error(b)).then((a & 1).cmp(&(b & 1)))).unwrap();
    u64::from(best) | u64::from(x.is_sign_negative()) << 7
}

#[test]
fn conversions_to_and_from_eight_bits() {
    let Some(mut gpu) = device() else { return };
    // Numbers of all exponents around those of the format, and the exact middles between its codes.
    let middles = (0..0x7e_u8).map(|c| f32::midpoint(e4m3::decode(c), e4m3::decode(c + 1)));
    let mut edges = edges();
    edges.extend(middles.flat_map(|x| [x, -x, x * (1.0 + f32::EPSILON)]).map(|x| u64::from(x.to_bits())));
    let mut inputs = Inputs::random(1, 2048, &edges);
    for bits in inputs.a.iter_mut().chain(&mut inputs.b).filter(|bits| **bits > u64::from(u32::MAX)) {
        *bits = *bits & 0x807f_ffff | ((*bits >> 40 & 31) + 112) << 23;
    }
    check(&mut gpu, CONVERT, "e4m3x2_of_f32", &inputs, |[a, b, _]| {
        nearest_e4m3(float(a)) << 8 | nearest_e4m3(float(b))
    });
    let codes = Inputs {
        a: (0..256).map(|i| i | ((i * 37 + 11) % 256) << 8).collect(),
        b: vec![0; 256],
        c: vec![0; 256],
    };
    let half = |code: u64| match e4m3::decode(code as u8) {
        x if x.is_nan() => 0x7fff,
        x => u64::from(f16::from_f32(x).to_bits()),
    };
    check(&mut gpu, CONVERT, "f16x2_of_e4m3x2", &codes, |[a, ..]| half(a >> 8) << 16 | half(a & 0xff));
}

#[test]
fn conversions_between_floats_and_integers() {
    let Some(mut gpu) = device() else { return };
    let inputs = Inputs::random(2, 1024, &edges());
    let bf16 =
        |x: u64| if float(x).is_nan() { 0x7fff } else { u64::from(bf16::from_f32(float(x)).to_bits()) };
    let f16 = |x: u64| if float(x).is_nan() { 0x7fff } else { u64::from(f16::from_f32(float(x)).to_bits()) };
    check(&mut gpu, CONVERT, "bf16x2_of_f32", &inputs, |[a, b, _]| bf16(a) << 16 | bf16(b));
    check(&mut gpu, CONVERT, "f16x2_of_f32", &inputs, |[a, b, _]| f16(a) << 16 | f16(b));
    check(&mut gpu, CONVERT, "f32_of_f16", &inputs, |[a, ..]| f32_bits(f16::from_bits(a as u16).to_f32()));
    check(&mut gpu, CONVERT, "f32_of_s32", &inputs, |[a, ..]| f32_bits(a as i32 as f32));
    // What is out of range is the nearest integer that is there. NaN is left out.
    let mut numbers = Inputs::random(3, 1024, &edges());
    for a in numbers.a.iter_mut().filter(|a| float(**a).is_nan()) {
        *a = 0x4b00_0001;
    }
    let integer = |x: f32| u64::from(x as i32 as u32);
    check(&mut gpu, CONVERT, "s32_of_f32", &numbers, |[a, ..]| integer(float(a).round_ties_even()));
    check(&mut gpu, CONVERT, "s32_below_f32", &numbers, |[a, ..]| integer(float(a).floor()));
    check(&mut gpu, CONVERT, "f64_of_f32", &numbers, |[a, ..]| f64::from(float(a)).to_bits());
    let mut wide = Inputs::random(
        4,
        1024,
        &[0, 1 << 63, 1, f64::MAX.to_bits(), 0x47ef_ffff_f000_0000, 0x3ff0_0000_1000_0000],
    );
    for a in wide.a.iter_mut().filter(|a| f64::from_bits(**a).is_nan()) {
        *a = 0x36a0_0000_0000_0001;
    }
    check(&mut gpu, CONVERT, "f32_of_f64", &wide, |[a, ..]| f32_bits(f64::from_bits(a) as f32));
}
