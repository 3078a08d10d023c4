use super::gemm::{View, add_product};
use super::*;

/// Numbers that look random, the same everywhere (`SplitMix64`).
pub(super) struct Random(pub u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// A linear with inputs that depend on each other: those it is calibrated with, and others alike.
struct Linear {
    cols: usize,
    w: Vec<f32>,
    x: Vec<f32>,
    test: Vec<f32>,
}

impl Linear {
    fn new(seed: u64, rows: usize, cols: usize, inputs: usize) -> Self {
        let mut random = Random(seed);
        let w: Vec<f32> =
            (0..rows * cols).map(|_| random.normal() * 0.02 * (random.normal() * 0.3).exp()).collect();
        let rank = cols.div_ceil(2);
        let mixing = random.normals(rank * cols);
        let scales: Vec<f32> = (0..cols).map(|_| (random.normal() * 0.7).exp()).collect();
        let mut sample = |inputs: usize| {
            let z: Vec<f32> = (0..inputs * rank).map(|i| random.normal() / (1 + i % rank) as f32).collect();
            let mut x: Vec<f32> = random.normals(inputs * cols).iter().map(|v| v * 0.03).collect();
            add_product(&mut x, 1.0, View::new(&z, inputs, rank, rank), View::new(&mixing, rank, cols, cols));
            x.iter_mut().zip(scales.iter().cycle()).for_each(|(v, s)| *v *= s);
            x
        };
        let (x, test) = (sample(inputs), sample(256));
        Linear { cols, w, x, test }
    }

    fn hessian(&self, window: usize, group: usize) -> Hessian {
        let mut hessian = Hessian::new(self.cols, window, group);
        let half = self.x.len() / self.cols / 2 * self.cols;
        for part in [&self.x[..half], &self.x[half..]] {
            hessian.add_rows(part, part.len() / self.cols);
        }
        hessian
    }

    fn outputs(&self, w: &[f32]) -> Vec<f32> {
        let (k, n, rows) = (self.cols, w.len() / self.cols, self.test.len() / self.cols);
        let mut y = vec![0.0; n * rows];
        add_product(&mut y, 1.0, View::new(&self.test, rows, k, k), View::new(w, n, k, k).transposed());
        y
    }

    /// ‖(W − Ŵ)X‖ / ‖WX‖ on inputs that were not calibrated with.
    fn error(&self, q: &Quantized) -> f64 {
        let squares = |v: Vec<f32>| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let missed: Vec<f32> = self.w.iter().zip(q.dequantize()).map(|(w, q)| w - q).collect();
        (squares(self.outputs(&missed)) / squares(self.outputs(&self.w))).sqrt()
    }

    fn quantize(&self, group: usize, method: &Method, hessian: Option<&Hessian>) -> (Quantized, Summary) {
        quantize(&self.w, self.cols, group, method, hessian)
    }
}

fn methods() -> [Method; 6] {
    let nearest = Method::nearest();
    let signed = Method { signed: true, ..nearest.clone() };
    let table = Method { rounding: Rounding::Entry, ..signed.clone() };
    let natural = Method { order: Order::Natural, ..Method::compensated() };
    [nearest, signed, table, Method::searched(), natural, Method::compensated()]
}

#[test]
fn each_step_is_worth_it() {
    let mut outputs = [0.0; 6];
    for seed in 0..3 {
        let linear = Linear::new(seed, 64, 512, 2048);
        let hessian = linear.hessian(WINDOW, 128);
        let found = methods().map(|m| linear.quantize(128, &m, Some(&hessian)));
        outputs.iter_mut().zip(&found).for_each(|(sum, (q, _))| *sum += linear.error(q) / 3.0);
        let [nearest, signed, table, searched, ..] = found.map(|(_, summary)| summary.error);
        assert!(signed < 0.92 * nearest && table < signed && searched < 0.9 * table);
    }
    let [nearest, signed, table, searched, natural, ordered] = outputs;
    assert!(signed < 0.9 * nearest, "{signed} after {nearest}");
    assert!(
        table < 1.02 * signed,
        "{table} after {signed}: what it gains for each weight is little for sums of them"
    );
    assert!(searched < 0.9 * table, "{searched} after {table}");
    assert!(natural < 0.2 * searched, "{natural} after {searched}");
    assert!(ordered < 0.8 * natural, "{ordered} after {natural}");
}

#[test]
fn the_nearest_method_is_what_quantize_does() {
    for (cols, group) in [(512, 128), (200, 128), (96, 32), (1, 128)] {
        let linear = Linear::new(7, 19, cols, 2);
        let (found, _) = linear.quantize(group, &Method::nearest(), None);
        assert_eq!(
            found,
            Quantized::from_rows(&linear.w, cols, &Format::weight(group), fireq_ir::Fit::Absmax)
        );
    }
}

#[test]
fn the_summary_is_about_what_kernels_decode() {
    let linear = Linear::new(3, 33, 300, 400);
    let hessian = linear.hessian(WINDOW, 128);
    let moments = hessian.diagonal();
    for method in methods() {
        let (q, summary) = linear.quantize(128, &method, Some(&hessian));
        let (mut errors, mut squares) = (0.0, 0.0);
        for ((w, v), m) in linear.w.iter().zip(q.dequantize()).zip(moments.iter().cycle()) {
            errors += f64::from(m * (w - v).powi(2));
            squares += f64::from(m * w * w);
        }
        let exact = (errors / squares).sqrt() as f32;
        assert!((summary.error / exact - 1.0).abs() < 1e-4, "{} is not {exact}", summary.error);
        assert_eq!(summary.clips.iter().map(|(_, count)| count).sum::<usize>(), q.scales[0].len());
        assert!(q.codes.iter().all(|code| (-8..8).contains(code)));
        assert!(q.scales[0].iter().all(|scale| fireq_ir::e4m3::round(*scale) == *scale));
    }
}

#[test]
fn groups_of_any_size_compensate() {
    for (cols, group) in [(512, 32), (512, 256), (300, 128), (300, 64), (100, 128)] {
        let linear = Linear::new(4, 48, cols, 1024);
        let hessian = linear.hessian(WINDOW, group);
        let error = |method| linear.error(&linear.quantize(group, &method, Some(&hessian)).0);
        let (searched, best) = (error(Method::searched()), error(Method::compensated()));
        assert!(best < 0.3 * searched, "{best} after {searched} with {cols} in groups of {group}");
    }
}

#[test]
fn windows_compensate_what_is_inside() {
    let linear = Linear::new(5, 64, 1000, 2048);
    let error = |window, method| {
        let hessian = linear.hessian(window, 128);
        assert_eq!(hessian.window(), if window < 1000 { 256 } else { 1024 });
        linear.error(&linear.quantize(128, &method, Some(&hessian)).0)
    };
    let searched = error(WINDOW, Method::searched());
    let (parts, whole) = (error(300, Method::compensated()), error(WINDOW, Method::compensated()));
    assert!(parts < 0.3 * searched && whole < 0.8 * parts, "{searched}, {parts}, {whole}");
}

#[test]
fn threads_do_not_change_a_bit() {
    let linear = Linear::new(6, 600, 700, 300);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| linear.quantize(128, &Method::compensated(), Some(&linear.hessian(384, 128))))
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn fewer_inputs_than_channels_get_more_damping() {
    let linear = Linear::new(8, 32, 512, 64);
    let hessian = linear.hessian(WINDOW, 128);
    let method = Method { damping: 0.0, ..Method::compensated() };
    let (q, summary) = linear.quantize(128, &method, Some(&hessian));
    let (searched, _) = linear.quantize(128, &Method::searched(), Some(&hessian));
    assert_eq!(summary.damping, 0.01);
    assert!(linear.error(&q) < 0.3 * linear.error(&searched));
}
