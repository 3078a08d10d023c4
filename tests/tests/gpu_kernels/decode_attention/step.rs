//! A step of decode attention: what its kernels read, and what they should give.

use fireq_ir::e4m3;
use fireq_kernels::cuda::splits::Split;
use fireq_kernels::cuda::{DecodeAttention, params};
use fireq_kernels::pages::{Part, TILE};
use fireq_sim::Launch;

use super::super::device::{Device, UNTOUCHED};
use super::super::linear::NAN;
use super::super::oracle::{Case, parts, pitched};
use super::super::pool::Pool;
use super::super::record::Near;

/// What pages hold behind the last key: codes of −1, scales that are NaN.
const NOTHING: u8 = 0xff;

/// The last tokens of each of several sequences.
pub struct Step {
    pub of: DecodeAttention,
    scale: f32,
    /// One for each sequence: queries, attention, and caches with the tokens' own keys and values.
    cases: Vec<Case>,
    /// Keys of each.
    pub keys: Vec<usize>,
    /// Tokens of each.
    tokens: usize,
}

impl Step {
    pub fn new(of: DecodeAttention, keys: &[usize], scale: f32) -> Self {
        Step::of_tokens(of, keys, scale, 1)
    }

    pub fn of_tokens(of: DecodeAttention, keys: &[usize], scale: f32, tokens: usize) -> Self {
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
    pub fn interpreted(&self) -> Vec<f32> {
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
    pub fn formula(&self, p: impl Fn(f64, f64) -> f64) -> Vec<f32> {
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
            q: gpu.put("q", &pitched(&queries(0), head, NAN)),
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
    pub fn run(&self, gpu: &mut Device, split: Split) -> Vec<f32> {
        let DecodeAttention { heads, head, .. } = self.of;
        let elements = self.count() * heads * head;
        let params = self.params(gpu, split);
        // Tensor cores keep fewer bits of sums than f32.
        gpu.near = Near::Relatively(2e-3);
        let unit = self.of.unit().unwrap();
        let shape = self.of.launch(self.count(), split);
        gpu.launch_as(
            &unit,
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
