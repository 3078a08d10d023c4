//! Parameters of attention and of what stands before it.

use fireq_ir::plan::{Launch, Place};
use fireq_kernels::cuda::params;
use fireq_kernels::cuda::program::{Argument, Count, Extent, MapShape, Table};
use fireq_kernels::cuda::{DecodeAttention, Prefill, PrefillConfig, Qkv};
use fireq_kernels::layout::pitch;

use super::products::map;
use super::{Binder, fields, number, part};

/// The launches of an attention: its own, and those of queries, keys and values.
pub(in super::super) struct Attended<'a> {
    pub attention: &'a Launch,
    pub q: &'a Launch,
    pub k: &'a Launch,
    pub v: &'a Launch,
}

impl Binder<'_> {
    /// The arguments of the kernel before attention; with workspaces where prefill reads them.
    pub fn qkv(&self, of: &Attended<'_>, qkv: &Qkv, workspaces: bool) -> Vec<Argument> {
        let [q, k, v] = [of.q, of.k, of.v].map(|launch| self.rows(launch.inputs[0]));
        let scale = |launch: &Launch| launch.inputs.get(2).map_or(Argument::Nothing, |b| part(*b, 0));
        let workspace = |index: usize| {
            if workspaces {
                self.workspaces(qkv.kv_heads, qkv.head)[index].clone()
            } else {
                Argument::Nothing
            }
        };
        fields::<params::Qkv>([
            ("q", q.at),
            ("k", k.at),
            ("v", v.at),
            ("table", part(of.q.inputs[1], 0)),
            ("q_scale", scale(of.q)),
            ("q_shift", Argument::Nothing),
            ("k_scale", scale(of.k)),
            ("k_shift", Argument::Nothing),
            ("q_codes", part(of.q.output, 0)),
            ("q_scales", part(of.q.output, 1)),
            ("runs", Argument::Table(Table::Runs)),
            ("tables", Argument::Table(Table::Pages)),
            ("pages", self.pages(of, qkv.pages().bytes())),
            ("k_workspace", workspace(0)),
            ("v_workspace", workspace(1)),
            ("page_stride", number(qkv.pages().bytes())),
            ("table_stride", Argument::Count(Count::PageTable)),
            ("workspace_stride", Argument::Count(Count::Positions)),
            ("q_stride", number(q.stride)),
            ("k_stride", number(k.stride)),
            ("v_stride", number(v.stride)),
        ])
    }

    /// The arguments of attention of single tokens, and of what combines its parts.
    pub fn decode(
        &self,
        of: &Attended<'_>,
        decode: &DecodeAttention,
        scale: f32,
    ) -> Result<[Vec<Argument>; 2], String> {
        let DecodeAttention { heads, kv_heads, head, .. } = *decode;
        let sums = self.region("sums of parts of attention", 4 * heads * head, Extent::Parts);
        let ends = self.region("exponents of parts of attention", 8 * heads, Extent::Parts);
        let (positions, out) = (self.input("positions")?, part(of.attention.output, 0));
        let attention = fields::<params::DecodeAttention>([
            ("q", part(of.q.output, 0)),
            ("q_scales", part(of.q.output, 1)),
            ("pages", self.pages(of, decode.pages().bytes())),
            ("tables", Argument::Table(Table::Pages)),
            ("sequences", Argument::Table(Table::Sequences)),
            ("positions", positions.clone()),
            ("out", out.clone()),
            ("sums", sums.clone()),
            ("ends", ends.clone()),
            ("factor", factor(scale)),
            ("page_stride", number(decode.pages().bytes())),
            ("table_stride", Argument::Count(Count::PageTable)),
            ("split_tiles", Argument::Count(Count::PartTiles)),
            ("repeats", number(heads / kv_heads)),
        ]);
        let combine = fields::<params::Combine>([
            ("sums", sums),
            ("ends", ends),
            ("positions", positions),
            ("out", out),
            ("split_keys", Argument::Count(Count::PartKeys)),
            ("splits", Argument::Count(Count::Parts)),
            ("heads", number(heads)),
        ]);
        Ok([attention, combine])
    }

    /// The arguments of the copy of earlier keys and values for prefill.
    pub fn gather(&self, of: &Attended<'_>, decode: &DecodeAttention) -> Vec<Argument> {
        let (kv_heads, head, page) = (decode.kv_heads, decode.head, decode.pages().bytes());
        let [keys, values] = self.workspaces(kv_heads, head);
        let behind = |workspace: &Argument, by_key| match workspace {
            Argument::Region { region, .. } => Argument::Region { region: *region, by_key },
            other => other.clone(),
        };
        fields::<params::GatherPages>([
            ("pages", self.pages(of, page)),
            ("table", Argument::Table(Table::Pages)),
            ("k_workspace", behind(&keys, kv_heads * pitch(head))),
            ("v_workspace", behind(&values, 1)),
            ("page_stride", number(page)),
            ("workspace_stride", Argument::Count(Count::Positions)),
            ("keys", Argument::Count(Count::Past)),
        ])
    }

    /// The arguments of attention of many queries.
    pub fn prefill(
        &self,
        of: &Attended<'_>,
        prefill: &Prefill,
        config: &PrefillConfig,
        scale: f32,
    ) -> Vec<Argument> {
        let Prefill { heads, kv_heads, head, .. } = *prefill;
        let [keys, values] = self.workspaces(kv_heads, head);
        let of_positions = |shape: &dyn Fn(usize) -> _| MapShape::of(Extent::Positions, shape);
        fields::<params::Prefill>([
            ("q", map(part(of.q.output, 0), MapShape::of(Extent::Tokens, |rows| prefill.q(rows)))),
            ("k", map(keys, of_positions(&|rows| prefill.k(rows, config)))),
            ("v", map(values, of_positions(&|rows| prefill.v(rows, rows, config)))),
            ("tiles", Argument::Table(Table::Tiles)),
            ("q_scales", part(of.q.output, 1)),
            ("out", part(of.attention.output, 0)),
            ("factor", factor(scale)),
            ("tokens", Argument::U32(0)),
            ("past", Argument::U32(0)),
            ("heads", number(heads)),
            ("repeats", number(heads / kv_heads)),
        ])
    }

    /// The pages of the attention's layer.
    fn pages(&self, of: &Attended<'_>, bytes: usize) -> Argument {
        let name = match &self.plan.buffers[of.k.output].place {
            Place::Cache(name) => name,
            _ => &of.k.symbol,
        };
        self.region(&format!("pages of {name}"), bytes, Extent::Pages)
    }

    /// Keys and values in FP8, of one layer after the other.
    fn workspaces(&self, kv_heads: usize, head: usize) -> [Argument; 2] {
        let region = |name, row| self.region(name, row, Extent::Positions);
        [region("keys of prefill", kv_heads * pitch(head)), region("values of prefill", kv_heads * head)]
    }
}

/// The attention's scale, for powers of two.
fn factor(scale: f32) -> Argument {
    Argument::F32(scale * std::f32::consts::LOG2_E)
}
