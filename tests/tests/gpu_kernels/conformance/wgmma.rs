//! Products of a warpgroup: `wgmma` on tiles that tensor maps have swizzled, with sums that are exact in any order.

use fireq_sim::{Launch, Params, Swizzle, TensorMap};

use super::Inputs;
use super::matrix::{bf16_of, e4m3_of};
use super::tma::SWIZZLES;
use crate::device::device;
use crate::record::Near;

/// A product of 64 × k and k × n, where k is what the swizzled rows of the tiles hold.
#[derive(Clone, Copy)]
struct Product {
    n: usize,
    swizzle: (Swizzle, usize),
    in_registers: bool,
    element: Element,
}

/// Name, bytes, and the bytes of a number.
type Element = (&'static str, usize, fn(i32) -> Vec<u8>);

const E4M3: Element = ("e4m3", 1, e4m3_of);
const BF16: Element = ("bf16", 2, bf16_of);

impl Product {
    fn k(&self) -> usize {
        self.swizzle.1 / self.element.1
    }

    fn name(&self) -> String {
        let from = if self.in_registers { "rs" } else { "ss" };
        format!("wgmma_{}_{from}_n{}_b{}", self.element.0, self.n, self.swizzle.1)
    }

    fn text(&self) -> String {
        let code = match self.swizzle.0 {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3,
        };
        format!(
            "#define N {}\n#define WIDTH {}\n#define SWIZZLE {code}\n#define NAME {}\n#define IN_REGISTERS {}\n{}{}",
            self.n,
            self.swizzle.1,
            self.name(),
            u8::from(self.in_registers),
            self.multiply(),
            include_str!("wgmma.cu"),
        )
    }

    /// The instruction as a macro: accumulators come first, then A, B, and whether the old sums count.
    fn multiply(&self) -> String {
        let sums = self.n / 2;
        let list = |range: std::ops::Range<usize>, f: &dyn Fn(usize) -> String| {
            range.map(f).collect::<Vec<_>>().join(", ")
        };
        let operands = if self.in_registers { 4 } else { 1 };
        let a = list(sums..sums + operands, &|i| format!("%{i}"));
        let a = if self.in_registers { format!("{{{a}}}") } else { a };
        let inputs =
            if self.in_registers { list(0..4, &|i| format!("\"r\"((a)[{i}])")) } else { "\"l\"(a)".into() };
        let (b, old) = (sums + operands, sums + operands + 1);
        // The operands of 16 bits also say that neither is transposed; A in registers cannot be.
        let transposed = match (self.element.1, self.in_registers) {
            (1, _) => "",
            (_, true) => ", 0",
            (_, false) => ", 0, 0",
        };
        let name = self.element.0;
        format!(
            "#define MULTIPLY(d, a, b, old) asm volatile(\"{{\\n.reg .pred p;\\nsetp.ne.u32 p, %{old}, 0;\\n\" \\\n\
             \"wgmma.mma_async.sync.aligned.m64n{}k{}.f32.{name}.{name} {{{}}}, {a}, %{b}, p, 1, 1{transposed};\\n}}\" \\\n\
             : {} : {inputs}, \"l\"(b), \"r\"((int)(old)))\n",
            self.n,
            32 / self.element.1,
            list(0..sums, &|i| format!("%{i}")),
            list(0..sums, &|i| format!("\"+f\"((d)[{i}])")),
        )
    }

    /// Runs it on matrices of bytes, and gives its sums.
    fn run(&self, [a, b]: [&[u8]; 2], near: Near) -> Option<Vec<f32>> {
        let mut gpu = device()?;
        gpu.near = near;
        let (swizzle, width) = self.swizzle;
        let (a, b) = (gpu.put("a", a), gpu.put("b", b));
        let out = gpu.space("out", 4 * 64 * self.n);
        let map = |address: u64, rows: usize| TensorMap {
            address,
            rank: 2,
            element_bytes: 1,
            dims: [width as u64, rows as u64, 0, 0, 0],
            strides: [width as u64, 0, 0, 0],
            block: [width as u32, rows as u32, 0, 0, 0],
            swizzle,
        };
        let [map_a, map_b] = [map(a, 64), map(b, self.n)].map(|map| map.encode().unwrap());
        let params = Params::new().bytes(64, &map_a).bytes(64, &map_b).u64(a).u64(out).bytes(64, &[]).build();
        let launch = Launch {
            kernel: self.name(),
            grid: [1; 3],
            block: [128, 1, 1],
            cluster: [1; 3],
            dynamic_shared: (64 + self.n) * width,
            params,
        };
        gpu.launch_text(&self.name(), &self.text(), &launch);
        Some(gpu.f32s(out, 64 * self.n))
    }

    /// Whole numbers so small that no sum has more bits than tensor cores keep; ends early without NVRTC.
    fn check(&self) {
        let k = self.k();
        let numbers = |seed: u64, count: usize| -> Vec<i32> {
            let random = Inputs::random(seed, count.next_multiple_of(256), &[]).a;
            random[..count].iter().map(|x| (*x % 15) as i32 - 7).collect()
        };
        let (a, b) = (numbers(60, 64 * k), numbers(61, self.n * k));
        let [a_bytes, b_bytes] =
            [&a, &b].map(|x| x.iter().flat_map(|x| self.element.2(*x)).collect::<Vec<u8>>());
        let Some(found) = self.run([&a_bytes, &b_bytes], Near::Exactly) else { return };
        for (i, found) in found.into_iter().enumerate() {
            let (m, n) = (i / self.n, i % self.n);
            let want: i32 = (0..k).map(|j| a[m * k + j] * b[n * k + j]).sum();
            assert_eq!(found, want as f32, "{}: row {m}, column {n}", self.name());
        }
    }
}

#[test]
fn products_of_swizzled_tiles() {
    for n in [8, 64, 256] {
        for swizzle in &SWIZZLES[1..] {
            Product { n, swizzle: *swizzle, in_registers: false, element: E4M3 }.check();
        }
        Product { n, swizzle: SWIZZLES[3], in_registers: true, element: E4M3 }.check();
    }
    for swizzle in &SWIZZLES[1..] {
        Product { n: 64, swizzle: *swizzle, in_registers: false, element: BF16 }.check();
    }
    for (n, swizzle) in [(64, SWIZZLES[3]), (8, SWIZZLES[1])] {
        Product { n, swizzle, in_registers: true, element: BF16 }.check();
    }
    Product { n: 64, swizzle: SWIZZLES[2], in_registers: true, element: E4M3 }.check();
}

/// All codes but NaN. A GPU is not held to the last bits here: how it rounds sums of eight-bit products is not documented.
/// If it cuts them off at thirteen bits, as is reported, the relative error of the whole is 2.4·10⁻⁴.
#[test]
fn products_of_all_codes() {
    let product = Product { n: 64, swizzle: SWIZZLES[3], in_registers: false, element: E4M3 };
    let codes = |seed: u64| -> Vec<u8> {
        let random = Inputs::random(seed, 64 * 128, &[]).a;
        random.iter().map(|x| if x & 0x7f == 0x7f { 0 } else { *x as u8 }).collect()
    };
    let (a, b) = (codes(62), codes(63));
    let Some(found) = product.run([&a, &b], Near::Relatively(1e-3)) else { return };
    let value = |code: u8| f64::from(fireq_ir::e4m3::decode(code));
    for (i, found) in found.into_iter().enumerate() {
        let products = (0..128).map(|j| value(a[i / 64 * 128 + j]) * value(b[i % 64 * 128 + j]));
        let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p: f64| (sum + p, size + p.abs()));
        assert!((f64::from(found) - sum).abs() <= size * 2f64.powi(-22), "{i}: {found} instead of {sum}");
    }
}
