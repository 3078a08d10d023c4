//! What the kernels around attention take.

use super::{DevicePtr, Params, TensorMap};

params! {
    /// Of what stands between projections and attention.
    Qkv = "fireq::qkv::Params" {
        /// `f32[tokens, q_stride]`, from the first query channel on.
        q: DevicePtr,
        /// `f32[tokens, k_stride]`, from the first key channel on.
        k: DevicePtr,
        /// `f32[tokens, v_stride]`, from the first value channel on.
        v: DevicePtr,
        /// `f32[tokens, head]`: cosines, then sines.
        table: DevicePtr,
        /// `f32[q_heads·head]` that rotated queries are multiplied with, or 0.
        q_scale: DevicePtr,
        /// `f32[q_heads·head]` that is added then, or 0.
        q_shift: DevicePtr,
        /// `f32[kv_heads·head]` that rotated keys are multiplied with, or 0.
        k_scale: DevicePtr,
        /// `f32[kv_heads·head]` that is added then, or 0.
        k_shift: DevicePtr,
        /// `e4m3[tokens, q_heads, head]`, heads [`pitch`](crate::layout::pitch) apart.
        q_codes: DevicePtr,
        /// `f32[tokens, q_heads]`.
        q_scales: DevicePtr,
        /// [`Run`] of each CTA in x.
        runs: DevicePtr,
        /// `u32[sequences, table_stride]`: pages of a sequence, in order.
        tables: DevicePtr,
        /// [`crate::pages`] of this layer.
        pages: DevicePtr,
        /// `e4m3[positions, kv_heads, head]`, heads [`pitch`](crate::layout::pitch) apart: dequantized keys for prefill, those of a
        /// sequence in a row, or 0.
        k_workspace: DevicePtr,
        /// `e4m3[kv_heads·head, workspace_stride]`: dequantized values, transposed, each sixteen positions in the order of
        /// [`crate::cuda::value_position`], or 0.
        v_workspace: DevicePtr,
        /// Bytes from one page to the next.
        page_stride: u32,
        /// Pages that a table has room for.
        table_stride: u32,
        /// Positions from one channel to the next: a multiple of 16.
        workspace_stride: u32,
        /// Numbers from one row of `q` to the next.
        q_stride: u32,
        /// Numbers from one row of `k` to the next.
        k_stride: u32,
        /// Numbers from one row of `v` to the next.
        v_stride: u32,
    }
    /// Neighbouring tokens of a sequence whose positions lie in one block of 16, in memory.
    Run = "fireq::qkv::Run" {
        /// Which of the tables.
        sequence: u32,
        /// The first token.
        token: u32,
        /// Its position.
        position: u32,
        /// How many tokens.
        count: u32,
        /// The position in the workspace of the sequence's first key: a multiple of 16.
        key: u32,
    }
    /// Of the copy of earlier keys and values from pages into the workspace of prefill.
    GatherPages = "fireq::gather_pages::Params" {
        /// [`crate::pages`] of this layer.
        pages: DevicePtr,
        /// `u32`: pages of the sequence, in order.
        table: DevicePtr,
        /// As for [`Qkv`].
        k_workspace: DevicePtr,
        /// As for [`Qkv`].
        v_workspace: DevicePtr,
        /// Bytes from one page to the next.
        page_stride: u32,
        /// Positions from one channel to the next: a multiple of 16.
        workspace_stride: u32,
        /// Positions that are copied; those behind them stay as they are.
        keys: u32,
    }
    /// Of attention of single tokens over INT4 pages.
    DecodeAttention = "fireq::decode_attention::Params" {
        /// `e4m3[tokens, heads, head]`, heads [`pitch`](crate::layout::pitch) apart.
        q: DevicePtr,
        /// `f32[tokens, heads]`.
        q_scales: DevicePtr,
        /// [`crate::pages`] of this layer.
        pages: DevicePtr,
        /// `u32[sequences, table_stride]`: pages of a sequence, in order.
        tables: DevicePtr,
        /// `u32[tokens]`, or 0 where the n-th token is of the n-th sequence.
        sequences: DevicePtr,
        /// `i32[tokens]`: the last key that a token sees, its own.
        positions: DevicePtr,
        /// `f32[tokens, heads·head]`.
        out: DevicePtr,
        /// `f32[tokens, splits, heads, head]`: unfinished sums of tokens whose keys are split.
        sums: DevicePtr,
        /// `f32[tokens, splits, heads, 2]`: exponents of these sums, and sums of probabilities.
        ends: DevicePtr,
        /// The attention's scale times log2(e).
        factor: f32,
        /// Bytes from one page to the next.
        page_stride: u32,
        /// Pages that a table has room for.
        table_stride: u32,
        /// Tiles of 64 keys of a CTA, at most.
        split_tiles: u32,
        /// Query heads of a kv head.
        repeats: u32,
    }
    /// Of what makes one attention of parts.
    Combine = "fireq::combine::Params" {
        /// As for [`DecodeAttention`].
        sums: DevicePtr,
        /// As for [`DecodeAttention`].
        ends: DevicePtr,
        /// As for [`DecodeAttention`].
        positions: DevicePtr,
        /// `f32[tokens, heads·head]`, where tokens in one part stay as they are.
        out: DevicePtr,
        /// Keys of a part.
        split_keys: u32,
        /// Parts that there is room for.
        splits: u32,
        /// Query heads.
        heads: u32,
    }
    /// Of attention over FP8 keys and values.
    Prefill = "fireq::prefill::Params" {
        /// `e4m3[tokens, heads, head]`, as [`crate::cuda::Prefill::q`] describes it.
        q: TensorMap,
        /// `e4m3[positions, kv_heads, head]`, as [`crate::cuda::Prefill::k`] describes it.
        k: TensorMap,
        /// `e4m3[kv_heads, head, positions]`, as [`crate::cuda::Prefill::v`] describes it.
        v: TensorMap,
        /// [`Queries`] of each CTA in x, as [`crate::cuda::Prefill::tiles`] has them, or 0: of a single sequence.
        tiles: DevicePtr,
        /// `f32[tokens, heads]`.
        q_scales: DevicePtr,
        /// `[tokens, heads·head]`, f32 or bf16.
        out: DevicePtr,
        /// The attention's scale times log2(e).
        factor: f32,
        /// Queries of the single sequence.
        tokens: u32,
        /// Keys before its first query's own.
        past: u32,
        /// Query heads.
        heads: u32,
        /// Query heads of a kv head.
        repeats: u32,
    }
    /// Queries of a CTA, in memory: some of one sequence's, in a row.
    Queries = "fireq::prefill::Queries" {
        /// The first, of all rows of queries.
        first: u32,
        /// How many; at least 1.
        count: u32,
        /// Keys before the first query's own; where attention is not causal, all of the sequence's but `count`.
        past: u32,
        /// The position in the workspace of the sequence's first key.
        key: u32,
    }
}
