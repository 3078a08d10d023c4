//! Attention of single tokens over pages, against its formula in f64 and against the interpreter: grouped heads, sequences of
//! unequal lengths, tails, splits, and scores of any size.

use fireq_ir::e4m3;
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::cuda::{DecodeAttention, params};
use fireq_kernels::pages::{Part, TILE};
use fireq_sim::{Accumulator, Launch};
use fireq_tests::relative_error;

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, parts};
use super::pool::Pool;
use super::record::Near;

/// What pages hold behind the last key: codes of −1, scales that are NaN.
const NOTHING: u8 = 0xff;

/// The last tokens of each of several sequences.
pub struct Step {
    of: DecodeAttention,
    scale: f32,
    /// One for each sequence: queries, attention, and caches with the tokens' own keys and values.
    cases: Vec<Case>,
    /// Keys of each.
    keys: Vec<usize>,
    /// Tokens of each.
    tokens: usize,
}

impl Step {
    pub fn new(of: DecodeAttention, keys: &[usize], scale: f32) -> Self {
        Step::of_tokens(of, keys, scale, 1)
    }

    fn of_tokens(of: DecodeAttention, keys: &[usize], scale: f32, tokens: usize) -> Self {
        let DecodeAttention { heads, kv_heads, head, .. } = of;
        let (q, kv) = (heads * head, kv_heads * head);
        let (query, cache) = (format!("e4m3<g{head}:f32>"), format!("i4<g{head}:e4m3>"));
        let body = format!(
            "%0 = input {{name=\"q\"}} : f32[T,{q}]
%1 = input {{name=\"k\"}} : f32[T,{kv}]
%2 = input {{name=\"v\"}} : f32[T,{kv}]
%3 = quantize %0 {{to={query}}} : {query}[T,{q}]
%4 = cache {{name=\"k.0\"}} : {cache}[P,{kv}]
%5 = quantize_append %4, %1 {{fit=signed}} : {cache}[P+T,{kv}]
%6 = cache {{name=\"v.0\"}} : {cache}[P,{kv}]
%7 = quantize_append %6, %2 {{fit=signed}} : {cache}[P+T,{kv}]
%8 = attention %3, %5, %7 {{heads={heads}, kv_heads={kv_heads}, scale={scale:?}, p=e4m3}} : f32[T,{q}]
return %3, %8"
        );
        let case = |(keys, seed): (&usize, u64)| Case::seeded(&body, [tokens, keys - tokens, 1], seed);
        Step { of, scale, cases: keys.iter().zip(7..).map(case).collect(), keys: keys.to_vec(), tokens }
    }

    /// The interpreter's outputs.
    fn interpreted(&self) -> Vec<f32> {
        self.cases.iter().flat_map(|case| case.output(1).to_f32()).collect()
    }

    /// Tokens of all sequences.
    fn count(&self) -> usize {
        self.cases.len() * self.tokens
    }

    fn position(&self, token: usize) -> u32 {
        (self.keys[token / self.tokens] - self.tokens + token % self.tokens) as u32
    }

    fn factor(&self) -> f32 {
        self.scale * std::f32::consts::LOG2_E
    }

    /// What the formula gives, with `p` of a score's distance from the maximum and from that rounded up to a whole exponent.
    fn formula(&self, p: impl Fn(f64, f64) -> f64) -> Vec<f32> {
        let DecodeAttention { heads, kv_heads, head, .. } = self.of;
        let one = |token: usize, h: usize| {
            let (sequence, t) = (token / self.tokens, token % self.tokens);
            let (case, unit) = (&self.cases[sequence], t * heads + h);
            let query = &parts(case.output(0))[0][unit * head..][..head].to_vec();
            let q_scale = f32::from_le_bytes(parts(case.output(0))[1][4 * unit..][..4].try_into().unwrap());
            let [k, v] = ["k.0", "v.0"].map(|name| case.cache(name).to_f32());
            let row = |of: &[f32], key: usize| -> Vec<f64> {
                let at = (key * kv_heads + h / (heads / kv_heads)) * head;
                of[at..at + head].iter().map(|x| f64::from(*x)).collect()
            };
            let score = |key: usize| {
                let products = query.iter().zip(row(&k, key)).map(|(q, k)| f64::from(e4m3::decode(*q)) * k);
                products.sum::<f64>() * f64::from(q_scale * self.factor())
            };
            let scores: Vec<f64> = (0..=self.position(token) as usize).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (mut sums, mut total) = (vec![0.0; head], 0.0);
            for (key, s) in scores.iter().enumerate() {
                let p = p(s - most, s - most.ceil());
                total += p;
                sums.iter_mut().zip(row(&v, key)).for_each(|(sum, v)| *sum += p * v);
            }
            sums.into_iter().map(|sum| (sum / total) as f32).collect::<Vec<_>>()
        };
        (0..self.count() * heads).flat_map(|unit| one(unit / heads, unit % heads)).collect()
    }

    /// Probabilities rounded as the kernel's are.
    pub fn rounded(&self) -> Vec<f32> {
        self.formula(|_, below| f64::from(e4m3::round((below.exp2() * 448.0) as f32)))
    }

    /// Memory for the step. Tables are in the reverse order of sequences.
    pub fn params(&self, gpu: &mut Device, split: Split) -> params::DecodeAttention {
        let DecodeAttention { heads, kv_heads, head, .. } = self.of;
        let (count, sequences) = (self.count(), self.cases.len());
        let elements = count * heads * head;
        let reversed: Vec<usize> = self.keys.iter().copied().rev().collect();
        let mut pool = Pool::new(self.of.pages(), &reversed, NOTHING);
        for (n, (case, keys)) in self.cases.iter().zip(&self.keys).enumerate() {
            pool.write(sequences - 1 - n, Part::Keys, case.cache("k.0"), 0..*keys);
            pool.write(sequences - 1 - n, Part::Values, case.cache("v.0"), 0..*keys);
        }
        let queries = |n: usize| -> Vec<u8> {
            self.cases.iter().flat_map(|case| parts(case.output(0)).remove(n)).collect()
        };
        let positions: Vec<u8> = (0..count).flat_map(|t| self.position(t).to_le_bytes()).collect();
        let sequence = |token: usize| (sequences - 1 - token / self.tokens) as u32;
        let sequence_of: Vec<u8> = (0..count).flat_map(|token| sequence(token).to_le_bytes()).collect();
        params::DecodeAttention {
            q: gpu.put("q", &queries(0)),
            q_scales: gpu.put("q scales", &queries(1)),
            pages: gpu.put("pages", &pool.bytes),
            tables: gpu.put("tables", &pool.table_bytes()),
            // A single token is of the first sequence.
            sequences: if count > 1 { gpu.put("sequences", &sequence_of) } else { 0 },
            positions: gpu.put("positions", &positions),
            out: gpu.space("out", 4 * elements + 64),
            sums: gpu.space("sums", 4 * elements * split.parts + 64),
            ends: gpu.space("ends", 8 * count * heads * split.parts + 64),
            factor: self.factor(),
            page_stride: pool.layout.bytes() as u32,
            table_stride: pool.stride as u32,
            split_tiles: split.tiles as u32,
            repeats: (heads / kv_heads) as u32,
        }
    }

    /// The output of the kernels with keys split like this.
    fn run(&self, gpu: &mut Device, split: Split) -> Vec<f32> {
        let DecodeAttention { heads, head, .. } = self.of;
        let elements = self.count() * heads * head;
        let params = self.params(gpu, split);
        // Tensor cores keep fewer bits of sums than f32.
        gpu.near = Near::Relatively(2e-3);
        let unit = self.of.unit().unwrap();
        let shape = self.of.launch(self.count(), split);
        gpu.launch_text(
            &unit.name,
            &unit.source().unwrap(),
            &Launch {
                kernel: unit.name.clone(),
                grid: shape.grid,
                block: shape.block,
                cluster: shape.cluster,
                dynamic_shared: shape.dynamic_shared as usize,
                params: params::Params::bytes(&params),
            },
        );
        if split.parts > 1 {
            gpu.near = Near::Relatively(1e-6);
            let combine = params::Combine {
                sums: params.sums,
                ends: params.ends,
                positions: params.positions,
                out: params.out,
                split_keys: (split.tiles * TILE) as u32,
                splits: split.parts as u32,
                heads: heads as u32,
            };
            gpu.launch(&self.of.combine().unwrap(), self.count(), 0, &combine);
        }
        for (name, at) in [
            ("out", params.out + 4 * elements as u64),
            ("sums", params.sums + (4 * elements * split.parts) as u64),
            ("ends", params.ends + (8 * self.count() * heads * split.parts) as u64),
        ] {
            assert_eq!(gpu.bytes(at, 64), [UNTOUCHED; 64], "behind {name}");
        }
        gpu.f32s(params.out, elements)
    }
}

/// Query heads, kv heads, channels of a head, positions of a page.
pub fn of([heads, kv_heads, head, page]: [usize; 4]) -> DecodeAttention {
    DecodeAttention { heads, kv_heads, head, page }
}

/// As many tiles in each part, and as many parts as that takes.
pub fn split(keys: &[usize], tiles: usize) -> Split {
    let most = keys.iter().max().unwrap().div_ceil(TILE);
    Split { tiles, parts: most.div_ceil(tiles) }
}

/// Sequences of so many keys, with scores multiplied by `scale`, in parts of `tiles`.
fn check(sizes: [usize; 4], keys: &[usize], scale: f32, tiles: usize) {
    let Some(mut gpu) = device() else { return };
    let step = Step::new(of(sizes), keys, scale);
    compare(&mut gpu, &step, tiles);
}

fn compare(gpu: &mut Device, step: &Step, tiles: usize) {
    let found = step.run(gpu, split(&step.keys, tiles));
    let (sizes, keys) = (step.of, &step.keys);
    let error = relative_error(&step.rounded(), &found);
    // A probability in the middle of two codes may go either way: one in a thousand does, by a sixteenth.
    assert!(error < 5e-4, "{sizes:?}, {keys:?} keys in parts of {tiles}: {error:.1e}");
    assert!(found.iter().all(|x| x.is_finite()));
}

/// No split.
pub const WHOLE: usize = 1 << 20;

#[test]
fn lengths_from_one_key_on_and_odd_tails() {
    for keys in [1, 2, 63, 64, 65, 127, 128, 129, 200, 700] {
        check([2, 1, 64, 64], &[keys], 0.3, WHOLE);
    }
}

#[test]
fn query_heads_of_a_kv_head_share_its_keys() {
    for [heads, kv_heads] in [[2, 2], [8, 2], [8, 1], [3, 1], [16, 1], [11, 1]] {
        for head in [64, 128] {
            check([heads, kv_heads, head, 64], &[150], 0.2, WHOLE);
        }
    }
}

#[test]
fn heads_and_pages_of_other_sizes_are_read() {
    check([4, 2, 256, 64], &[130], 0.1, WHOLE);
    check([2, 1, 192, 64], &[100], 0.1, WHOLE);
    check([4, 2, 128, 128], &[300, 70], 0.2, WHOLE);
    check([4, 2, 64, 256], &[500], 0.2, 3);
    check([2, 1, 32, 64], &[75], 0.3, WHOLE);
    check([4, 2, 80, 64], &[300, 9], 0.2, 2);
}

#[test]
fn a_launch_serves_sequences_of_unequal_lengths() {
    check([8, 2, 128, 64], &[1, 700, 64, 65, 333], 0.2, WHOLE);
    check([4, 2, 64, 64], &[1, 700, 64, 129, 333], 0.2, 2);
}

#[test]
fn tokens_of_a_sequence_see_no_later_keys() {
    let Some(mut gpu) = device() else { return };
    for tiles in [WHOLE, 1] {
        compare(&mut gpu, &Step::of_tokens(of([4, 2, 64, 64]), &[66, 130], 0.3, 4), tiles);
    }
}

#[test]
fn parts_of_any_length_give_the_same() {
    let Some(mut gpu) = device() else { return };
    let keys = [700, 90];
    let step = Step::new(of([8, 2, 64, 64]), &keys, 0.3);
    let whole = step.run(&mut gpu, split(&keys, WHOLE));
    for (tiles, parts) in [(6, 2), (2, 6), (1, 11)] {
        let split = split(&keys, tiles);
        assert_eq!(split.parts, parts);
        let error = relative_error(&whole, &step.run(&mut gpu, split));
        assert!(error < 1e-4, "{parts} parts: {error:.1e}");
    }
}

#[test]
fn scores_of_ten_thousand_stay_finite() {
    let keys = [200, 64];
    let step = Step::new(of([4, 1, 128, 64]), &keys, 1000.0);
    let largest = step.interpreted().iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(largest.is_finite());
    for tiles in [WHOLE, 1] {
        check([4, 1, 128, 64], &keys, 1000.0, tiles);
    }
}

/// The interpreter rounds probabilities under the maximum as it is, kernels under a whole exponent, where the largest is not
/// exact: against probabilities that are not rounded that costs at most half as much again, whether few keys count or many.
#[test]
fn rounding_costs_little_more_than_the_interpreters() {
    let Some(mut gpu) = device() else { return };
    let keys = [500, 333];
    for scale in [0.02, 0.1, 0.3] {
        let step = Step::new(of([8, 2, 64, 64]), &keys, scale);
        let exact = step.formula(|below, _| below.exp2());
        let found = step.run(&mut gpu, split(&keys, WHOLE));
        let [interpreted, found] = [&step.interpreted(), &found].map(|x| relative_error(&exact, x));
        eprintln!("scale {scale}: rounding costs the interpreter {interpreted:.2e}, the kernel {found:.2e}");
        assert!(found < 1.5 * interpreted, "scale {scale}: {found:.1e}, {interpreted:.1e}");
    }
}

/// Tensor cores are reported to keep 13 bits below the leading one of a sum. They add up the products of 256 keys at most, so
/// that it costs less than a tenth of what rounding probabilities does, whether few keys count or many.
#[test]
fn sums_of_few_bits_stay_near() {
    let Some(mut gpu) = device() else { return };
    let (of, keys) = (of([4, 1, 64, 64]), [3000]);
    for scale in [0.001, 0.1] {
        let step = Step::new(of, &keys, scale);
        let params = step.params(&mut gpu, split(&keys, WHOLE));
        let rounding = relative_error(&step.formula(|below, _| below.exp2()), &step.rounded());
        let truncated = Accumulator::Truncated { fraction_bits: 13 };
        gpu.launch_with(truncated, &of.unit().unwrap(), 1, &params);
        let error = relative_error(&step.rounded(), &gpu.f32s(params.out, 4 * 64));
        eprintln!("scale {scale}: sums of 13 bits cost {error:.1e}, rounding {rounding:.1e}");
        assert!(error < rounding / 10.0, "scale {scale}: {error:.1e}, {rounding:.1e}");
    }
}
