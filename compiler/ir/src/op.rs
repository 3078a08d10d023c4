//! The operations: one enum from one table. Inference, interpreter and lowering are exhaustive matches elsewhere.

use std::sync::Arc;

use crate::attr::{Attr, AttrError, Attribute};
use crate::{DType, Fit, Format};

/// Name, operands, attributes and documentation of an operation.
#[derive(Debug)]
pub struct OpInfo {
    /// The name in text IR.
    pub mnemonic: &'static str,
    /// Operand names, in slot order; the optional ones come last.
    pub operands: &'static [&'static str],
    /// How many of the operands may be left out.
    pub optional: usize,
    /// Attribute names, in print order.
    pub attrs: &'static [&'static str],
    /// One paragraph: what it computes, with shapes.
    pub doc: &'static str,
}

macro_rules! ops {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $mnemonic:literal ($($operand:ident),* $(; $optional:ident)?) $({ $($attr:ident : $ty:ty),+ })? ;)*) => {
        /// An operation with its attributes. Every operation has one result.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $( $(#[doc = $doc])+ #[allow(missing_docs)] $variant $({ $($attr: $ty),+ })?, )*
        }

        /// Every operation, in table order.
        pub const OPS: &[OpInfo] = &[$( OpInfo {
            mnemonic: $mnemonic,
            operands: &[$(stringify!($operand),)* $(stringify!($optional))?],
            optional: 0 $(+ { let _ = stringify!($optional); 1 })?,
            attrs: &[$($(stringify!($attr)),+)?],
            doc: concat!($($doc, "\n"),+),
        } ),*];

        impl Op {
            /// The operation's row of [`OPS`].
            pub fn info(&self) -> &'static OpInfo {
                let mut row = 0;
                $( if matches!(self, Op::$variant $({ $($attr: _),+ })?) { return &OPS[row]; } row += 1; )*
                unreachable!("{row} rows, one for each variant")
            }

            /// The attributes by name, in print order, without those that have the value of an omitted one.
            pub fn attrs(&self) -> Vec<(&'static str, Attr)> {
                match self {
                    $( Op::$variant $({ $($attr),+ })? => shown([$($((stringify!($attr), $attr.shown())),+)?]), )*
                }
            }

            /// The operation named `mnemonic`, its attributes looked up in `get`. `None` when there is none.
            pub fn build(mnemonic: &str, get: &dyn Fn(&str) -> Option<Attr>) -> Result<Option<Op>, AttrError> {
                Ok(Some(match mnemonic {
                    $( $mnemonic => Op::$variant $({ $($attr: Attribute::read(stringify!($attr), get)?),+ })?, )*
                    _ => return Ok(None),
                }))
            }
        }
    };
}

fn shown<const N: usize>(attrs: [(&'static str, Option<Attr>); N]) -> Vec<(&'static str, Attr)> {
    attrs.into_iter().filter_map(|(name, attr)| attr.map(|attr| (name, attr))).collect()
}

ops! {
    /// A graph input, named; its type is declared.
    Input = "input" () { name: Arc<str> };
    /// A constant, named; its type is declared, its data held by the graph or elided.
    Const = "const" () { name: Arc<str> };
    /// The state of a KV cache before this step, rows of past tokens `[P,C]`; its type is declared.
    Cache = "cache" () { name: Arc<str> };
    /// Rows of a table by index: `table[V,C]`, `index i32[T]` → `f32[T,C]`. The token embedding, and the rows whose logits are wanted.
    Gather = "gather" (table, index);
    /// `x / sqrt(mean(x²) + eps) · weight`, over each run of `G` channels: `x f32[T,C]`, `weight[G]`, `C` a multiple of `G`. `G < C` is a norm per head.
    RmsNorm = "rms_norm" (x, weight) { eps: f32 };
    /// `x · weightᵀ`: `x[T,K]`, `weight[N,K]` → `f32[T,N]`, FP32 accumulation; scales of both are applied in the epilogue.
    Linear = "linear" (x, weight);
    /// Adds a vector to each row: `x f32[T,C]`, `bias[C]`.
    Bias = "bias" (x, bias);
    /// Cosines and sines of `position · inv_freq`: `positions i32[T]`, `inv_freq f32[D/2]` → `f32[T,D]`, cosines first.
    RopeTable = "rope_table" (positions, inv_freq);
    /// Rotates channel `i` with `i + D/2` of each head: `x f32[T,H·D]`, `table f32[T,D]`.
    Rope = "rope" (x, table);
    /// The cache with this step's rows after the past ones: `cache[P,C]`, `x[T,C]` → `[P+T,C]`. The result is the next step's cache.
    KvAppend = "kv_append" (cache, x);
    /// Causal attention of the last `T` of `P+T` positions: `q[T,H·D]`, `k[P+T,Hkv·D]`, `v[P+T,Hkv·D]` → `f32[T,H·D]`.
    /// `softmax(q·kᵀ·scale)·v`; with `p=e4m3` probabilities are `448·2^(s−⌈max⌉)`, `s` in base 2, rounded to E4M3
    /// (FireQ section 6; whole exponents make the running maximum of a tiled kernel exact).
    Attention = "attention" (q, k, v) { heads: usize, kv_heads: usize, scale: f32, p: DType };
    /// `x / (1 + exp(−x))`.
    Silu = "silu" (x);
    /// Element-wise product.
    Mul = "mul" (a, b);
    /// Element-wise sum.
    Add = "add" (a, b);
    /// Multiplies each channel by its own scale: `x[T,C]` or a constant `x[C]`, `scale[C]` → `f32`.
    Scale = "scale" (x, scale);
    /// Multiplies each row of a weight by its own scale: `x[N,K]`, `scale[N]` → `f32[N,K]`.
    ScaleRows = "scale_rows" (x, scale);
    /// The same numbers: what stands before a fence and what stands behind it are never multiplied out with each other, so
    /// that a scale which an inverse elsewhere undoes stays where it was put.
    Fence = "fence" (x);
    /// The nearest value in a number format, as codes and scales (FireQ sections 2, 3 and 6). How scales of I4 codes are
    /// chosen is `fit`: `absmax` where nothing is written, `signed` or `clipped`.
    Quantize = "quantize" (x) { to: Format, fit: Fit };
    /// The numbers that codes and scales stand for, as f32.
    Dequantize = "dequantize" (x);
    /// The same codes under other scales: `x` I4 under one level of scales that nothing rounds, `to` I4 in groups that lie
    /// inside of those, under E4M3 scales and one of each row, all chosen for the least squared error of what codes stand for,
    /// times `rows[N]` where that is given.
    Rescale = "rescale" (x; rows) { to: Format };
    /// The rows of `a`, then those of `b`: `a[N,K]`, `b[M,K]` of one format → `[N+M,K]`; or two vectors end to end.
    Concat = "concat" (a, b);
    /// Channels `start` to `start+size` of each row: `x f32[T,C]` → `f32[T,size]`.
    Slice = "slice" (x) { start: usize, size: usize };
    /// Rows become columns: `x[N,K]` → `[K,N]`.
    Transpose = "transpose" (x);
    /// The same elements, row after row, in rows of another length: `x[N,K]` of a fixed shape → `[rows,cols]`.
    Reshape = "reshape" (x) { rows: usize, cols: usize };
    /// Fused: `quantize(rms_norm(x, weight))`.
    NormQuantize = "norm_quantize" (x, weight) { eps: f32, to: Format };
    /// Fused: `bias(linear(x, weight), bias)`.
    LinearBias = "linear_bias" (x, weight, bias);
    /// Fused: `add(residual, linear(x, weight))`.
    LinearAdd = "linear_add" (x, weight, residual);
    /// Fused: `quantize(silu(gate) · up)`, where gate and up are the two halves of `linear(x, weight)`: `weight[2F,K]` → `[T,F]`.
    LinearSwiglu = "linear_swiglu" (x, weight) { to: Format };
    /// Fused: `quantize(scale(rope(x, table), scale))`; without `scale`, nothing is multiplied.
    RopeQuantize = "rope_quantize" (x, table; scale) { to: Format };
    /// Fused: `kv_append(cache, quantize(scale(rope(x, table), scale)))` in the cache's format; without `scale`, nothing is multiplied.
    RopeAppend = "rope_append" (cache, x, table; scale) { fit: Fit };
    /// Fused: `kv_append(cache, quantize(x))` in the cache's format.
    QuantizeAppend = "quantize_append" (cache, x) { fit: Fit };
}

impl Op {
    /// The name in text IR.
    pub fn mnemonic(&self) -> &'static str {
        self.info().mnemonic
    }

    /// The numbers of operands that it takes.
    pub fn arity(&self) -> std::ops::RangeInclusive<usize> {
        let info = self.info();
        info.operands.len() - info.optional..=info.operands.len()
    }

    /// `Err` with a sentence when it does not take `found` operands.
    pub(crate) fn check_arity(&self, found: usize) -> Result<(), String> {
        let arity = self.arity();
        if arity.contains(&found) {
            return Ok(());
        }
        let wanted = if arity.start() == arity.end() {
            arity.end().to_string()
        } else {
            format!("{} or {}", arity.start(), arity.end())
        };
        Err(format!("takes {wanted} operands, found {found}"))
    }

    /// True for what reads a cache and makes the next step's: the operations whose first operand is one.
    pub fn appends(&self) -> bool {
        matches!(self, Op::KvAppend | Op::RopeAppend { .. } | Op::QuantizeAppend { .. })
    }

    /// True for operations whose type is declared rather than inferred.
    pub fn is_source(&self) -> bool {
        matches!(self, Op::Input { .. } | Op::Const { .. } | Op::Cache { .. })
    }

    /// The name of an input, constant or cache.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Op::Input { name } | Op::Const { name } | Op::Cache { name } => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_rebuilt_from_its_attributes() {
        let op = Op::Attention { heads: 4, kv_heads: 2, scale: 0.125, p: DType::E4M3 };
        let attrs = op.attrs();
        let get = |name: &str| attrs.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
        assert_eq!(Op::build(op.mnemonic(), &get), Ok(Some(op)));
    }

    #[test]
    fn an_omitted_attribute_has_its_default() {
        let op = |fit| Op::QuantizeAppend { fit };
        let written = Op::build("quantize_append", &|_| Some(Attr::Word("absmax".into())));
        assert_eq!(written, Ok(Some(op(Fit::Absmax))));
        assert_eq!(Op::build("quantize_append", &|_| None), Ok(Some(op(Fit::Absmax))));
        assert_eq!(op(Fit::Absmax).attrs(), []);
        assert_eq!(op(Fit::Signed).attrs(), [("fit", Attr::Word("signed".into()))]);
    }

    #[test]
    fn a_missing_attribute_is_named() {
        let error = Op::build("rms_norm", &|_| None).unwrap_err();
        assert_eq!(error.to_string(), "attribute `eps` is missing");
        assert_eq!(Op::build("no_such_op", &|_| None), Ok(None));
    }
}
