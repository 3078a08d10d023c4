//! The kernel between projections and attention: queries, pages and workspaces to the bit.

use fireq_ir::Fit;
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::{BLOCK, Qkv, Sequence, runs, value_position};
use fireq_kernels::layout::pitch;
use fireq_kernels::pages::{Pages, Part};

use super::device::{Device, UNTOUCHED, device};
use super::oracle::{Case, elements_e4m3, parts, pitched};
use super::pool::Pool;

/// A case: what the kernel is specialized for, and whether there are scales and shifts behind rope.
struct Heads {
    qkv: Qkv,
    scaled: bool,
    shifted: bool,
}

impl Heads {
    /// The operations that the kernel stands for, one by one.
    fn case(&self, Sequence { past, tokens, .. }: Sequence, seed: u64) -> Case {
        let Qkv { q_heads, kv_heads, head, k_fit, v_fit, .. } = self.qkv;
        let (q, kv) = (q_heads * head, kv_heads * head);
        let cache = format!("i4<g{head}:e4m3>");
        let mut lines = vec![
            format!("input {{name=\"q\"}} : f32[T,{q}]"),
            format!("input {{name=\"k\"}} : f32[T,{kv}]"),
            format!("input {{name=\"v\"}} : f32[T,{kv}]"),
            format!("input {{name=\"table\"}} : f32[T,{head}]"),
            format!("cache {{name=\"k.0\"}} : {cache}[P,{kv}]"),
            format!("cache {{name=\"v.0\"}} : {cache}[P,{kv}]"),
        ];
        let mut push = |line: String| {
            lines.push(line);
            lines.len() - 1
        };
        let turned = [("q", 0, q), ("k", 1, kv)].map(|(name, x, cols)| {
            let mut x = push(format!("rope %{x}, %3 : f32[T,{cols}]"));
            for (op, wanted) in [("scale", self.scaled), ("bias", self.shifted)] {
                if wanted {
                    let by = push(format!("const {{name=\"{name} {op}\"}} : f32[{cols}]"));
                    x = push(format!("{op} %{x}, %{by} : f32[T,{cols}]"));
                }
            }
            x
        });
        let query =
            push(format!("quantize %{} {{to=e4m3<g{head}:f32>}} : e4m3<g{head}:f32>[T,{q}]", turned[0]));
        let appended = [(4, turned[1], k_fit), (5, 2, v_fit)].map(|(before, rows, fit)| {
            push(format!("quantize_append %{before}, %{rows} {{fit={fit}}} : {cache}[P+T,{kv}]"))
        });
        let mut body: String = lines.iter().enumerate().map(|(n, line)| format!("%{n} = {line}\n")).collect();
        body += &format!("return %{query}, %{}, %{}", appended[0], appended[1]);
        Case::seeded(&body, [tokens, past, 1], seed)
    }
}

/// Rows of a merged projection of all sequences: queries, keys and values side by side.
fn merged(cases: &[Case], spans: &[Sequence]) -> Vec<f32> {
    let rows = |(case, span): (&Case, &Sequence)| {
        let all = ["q", "k", "v"].map(|name| case.input_f32(name));
        let cols = all.each_ref().map(|x| x.len() / span.tokens);
        let row =
            |t: usize| (0..3).flat_map(|n| all[n][cols[n] * t..][..cols[n]].to_vec()).collect::<Vec<_>>();
        (0..span.tokens).flat_map(row).collect::<Vec<_>>()
    };
    cases.iter().zip(spans).flat_map(rows).collect()
}

/// Positions that workspaces and tables have room for: a block more than there are.
fn context(span: &Sequence) -> usize {
    (span.past + span.tokens).next_multiple_of(BLOCK) + BLOCK
}

/// A step of several sequences.
struct Step<'a> {
    heads: &'a Heads,
    spans: &'a [Sequence],
    cases: Vec<Case>,
    /// Pages before and after it.
    before: Pool,
    after: Pool,
}

impl<'a> Step<'a> {
    fn new(heads: &'a Heads, spans: &'a [Sequence]) -> Self {
        let Qkv { kv_heads, head, page, .. } = heads.qkv;
        let cases: Vec<Case> = spans.iter().zip(7..).map(|(span, seed)| heads.case(*span, seed)).collect();
        let contexts: Vec<usize> = spans.iter().map(context).collect();
        let pool = || Pool::new(Pages { kv_heads, head, keys: page }, &contexts, UNTOUCHED);
        let (mut before, mut after) = (pool(), pool());
        for (n, (case, span)) in cases.iter().zip(spans).enumerate() {
            for (name, part) in [("k.0", Part::Keys), ("v.0", Part::Values)] {
                before.write(n, part, &case.caches[name], 0..span.past);
                after.write(n, part, case.cache(name), 0..span.past + span.tokens);
            }
        }
        Step { heads, spans, cases, before, after }
    }

    /// All sequences' bytes, one after the other.
    fn joined(&self, of: impl Fn(&Case) -> Vec<u8>) -> Vec<u8> {
        self.cases.iter().flat_map(of).collect()
    }

    /// Positions of workspaces.
    fn positions(&self) -> usize {
        self.spans.iter().map(context).sum()
    }

    /// Memory for the step.
    fn params(&self, gpu: &mut Device) -> params::Qkv {
        let Qkv { q_heads, kv_heads, head, .. } = self.heads.qkv;
        let (q, kv) = (q_heads * head, kv_heads * head);
        let tokens: usize = self.spans.iter().map(|span| span.tokens).sum();
        let mut space = |name, cols| gpu.space(name, self.positions() * cols);
        let k_workspace = space("k workspace", kv_heads * pitch(head));
        let v_workspace = space("v workspace", kv);
        let case = &self.cases[0];
        let mut vector = |name: &str, wanted| if wanted { gpu.put(name, &case.constant(name)) } else { 0 };
        let [q_scale, k_scale] = ["q scale", "k scale"].map(|name| vector(name, self.heads.scaled));
        let [q_shift, k_shift] = ["q bias", "k bias"].map(|name| vector(name, self.heads.shifted));
        let merged = gpu.put_f32("qkv", &merged(&self.cases, self.spans));
        let stride = (q + 2 * kv) as u32;
        let runs: Vec<u8> = runs(self.spans).iter().flat_map(Params::bytes).collect();
        params::Qkv {
            q: merged,
            k: merged + 4 * q as u64,
            v: merged + 4 * (q + kv) as u64,
            table: gpu.put("angles", &self.joined(|case| case.input("table"))),
            q_scale,
            q_shift,
            k_scale,
            k_shift,
            q_codes: gpu.space("q codes", tokens * q_heads * pitch(head)),
            q_scales: gpu.space("q scales", 4 * tokens * q_heads),
            runs: gpu.put("runs", &runs),
            tables: gpu.put("tables", &self.before.table_bytes()),
            pages: gpu.put("pages", &self.before.bytes),
            k_workspace,
            v_workspace,
            page_stride: self.before.layout.bytes() as u32,
            table_stride: self.before.stride as u32,
            workspace_stride: self.positions() as u32,
            q_stride: stride,
            k_stride: stride,
            v_stride: stride,
        }
    }

    fn check(&self, gpu: &mut Device) {
        let what = format!("{:?}, {:?}", self.heads.qkv, self.spans);
        let params = self.params(gpu);
        gpu.launch(&self.heads.qkv.unit().unwrap(), runs(self.spans).len(), 0, &params);
        for (n, at) in [params.q_codes, params.q_scales].into_iter().enumerate() {
            let mut expected = self.joined(|case| parts(case.output(0)).remove(n));
            if n == 0 {
                expected = pitched(&expected, self.heads.qkv.head, UNTOUCHED);
            }
            assert_eq!(gpu.bytes(at, expected.len()), expected, "part {n} of queries: {what}");
        }
        let pages = gpu.bytes(params.pages, self.after.bytes.len());
        let first = (0..pages.len()).find(|i| pages[*i] != self.after.bytes[*i]);
        assert_eq!(first, None, "the first byte of pages of {} that is wrong: {what}", params.page_stride);
        self.check_workspaces(gpu, &params, &what);
    }

    /// Keys and values of the step are there, and zeros behind the last value of a block; all else is untouched.
    fn check_workspaces(&self, gpu: &Device, params: &params::Qkv, what: &str) {
        let Qkv { kv_heads, head, .. } = self.heads.qkv;
        let (kv, positions) = (kv_heads * head, self.positions());
        let pitched_keys = gpu.bytes(params.k_workspace, positions * kv_heads * pitch(head));
        let keys: Vec<u8> = pitched_keys.chunks(pitch(head)).flat_map(|key| key[..head].to_vec()).collect();
        assert_eq!(pitched(&keys, head, UNTOUCHED), pitched_keys, "nothing is written between keys: {what}");
        let values = gpu.bytes(params.v_workspace, positions * kv);
        for (case, span) in self.cases.iter().zip(self.spans) {
            let rows = span.past..span.past + span.tokens;
            let behind = rows.end..rows.end.next_multiple_of(BLOCK);
            let wanted = ["k.0", "v.0"].map(|name| elements_e4m3(case.cache(name)));
            for row in 0..context(span) {
                let place = span.key + row / BLOCK * BLOCK + value_position(row % BLOCK);
                for channel in 0..kv {
                    let at = row * kv + channel;
                    let [key, value] =
                        wanted.each_ref().map(|all| if rows.contains(&row) { all[at] } else { UNTOUCHED });
                    assert_eq!(keys[(span.key + row) * kv + channel], key, "key {row}, {channel}: {what}");
                    let found = values[channel * positions + place];
                    let is_right =
                        if behind.contains(&row) { matches!(found, 0 | 0x80) } else { found == value };
                    assert!(is_right, "value {row}, channel {channel}: {found:#x}, {value:#x}: {what}");
                }
            }
        }
    }
}

/// Query heads, key heads and their channels; fits of keys and values; positions of a page; whether scaled and shifted.
fn heads(sizes: [usize; 3], fits: [Fit; 2], page: usize, [scaled, shifted]: [bool; 2]) -> Heads {
    let ([q_heads, kv_heads, head], [k_fit, v_fit]) = (sizes, fits);
    Heads { qkv: Qkv { q_heads, kv_heads, head, k_fit, v_fit, page }, scaled, shifted }
}

/// Tokens and what is past, of each sequence; one after the other in rows and workspaces.
fn spans<const N: usize>(of: [[usize; 2]; N]) -> Vec<Sequence> {
    let (mut query, mut key) = (0, 0);
    let mut next = |[tokens, past]: [usize; 2]| {
        let sequence = Sequence { query, tokens, past, key };
        (query, key) = (query + tokens, key + context(&sequence));
        sequence
    };
    of.map(&mut next).into()
}

#[test]
fn queries_pages_and_workspaces_are_the_interpreters_to_the_bit() {
    use Fit::{Absmax, Clipped, Signed};
    let Some(mut gpu) = device() else { return };
    let cases = [
        heads([4, 2, 64], [Absmax, Absmax], 64, [false, false]),
        heads([4, 1, 128], [Clipped, Clipped], 64, [true, true]),
        heads([2, 2, 256], [Signed, Clipped], 128, [true, false]),
        heads([3, 1, 80], [Clipped, Signed], 64, [false, true]),
        heads([2, 1, 20], [Clipped, Absmax], 64, [true, true]),
        heads([3, 1, 48], [Absmax, Absmax], 64, [false, false]),
        heads([3, 1, 96], [Clipped, Clipped], 64, [true, true]),
        heads([3, 1, 100], [Clipped, Signed], 64, [true, false]),
    ];
    for heads in &cases {
        for span in [[1, 0], [1, 37], [5, 14], [33, 16], [21, 0]] {
            Step::new(heads, &spans([span])).check(&mut gpu);
        }
    }
}

#[test]
fn positions_at_the_ends_of_tiles_and_pages_go_to_their_pages() {
    let Some(mut gpu) = device() else { return };
    for page in [64, 128] {
        let heads = heads([2, 1, 64], [Fit::Signed; 2], page, [false, false]);
        for span in [[1, 63], [1, 64], [1, 127], [3, 62], [70, 60], [16, 112], [144, 0]] {
            Step::new(&heads, &spans([span])).check(&mut gpu);
        }
    }
}

#[test]
fn sequences_of_a_step_go_to_pages_of_their_own() {
    let Some(mut gpu) = device() else { return };
    let heads = heads([4, 2, 128], [Fit::Signed; 2], 64, [true, false]);
    Step::new(&heads, &spans([[1, 63], [1, 64], [1, 1], [1, 100]])).check(&mut gpu);
    Step::new(&heads, &spans([[3, 62], [70, 10], [1, 0]])).check(&mut gpu);
}
