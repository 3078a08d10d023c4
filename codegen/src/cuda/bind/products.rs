//! Parameters of products with INT4 weights.

use fireq_ir::plan::Launch;
use fireq_kernels::cuda::cost_fp8::CTAS;
use fireq_kernels::cuda::params::{self, DecodeWeight};
use fireq_kernels::cuda::program::{Argument, Count, Extent, MapShape};
use fireq_kernels::cuda::tuning::Method;
use fireq_kernels::cuda::{Addend, Linear, LinearFp8};

use super::{Binder, fields, number, part};

impl Binder<'_> {
    /// f32 rows that a product leaves to the quantizer behind it: gated ones, or gates and ups.
    pub fn between(&self, linear: &Linear) -> Argument {
        self.region("rows before their quantization", 4 * linear.outputs(), Extent::Tokens)
    }

    /// The arguments of what runs for a method, in order; outputs go to `out`.
    pub fn method(
        &self,
        launch: &Launch,
        linear: &Linear,
        method: &Method,
        out: &Argument,
    ) -> Vec<Vec<Argument>> {
        let [x, weight] = [0, 1].map(|n| launch.inputs[n]);
        let addend = match linear.addend {
            Addend::Nothing => Argument::Nothing,
            Addend::Bias(_) | Addend::Residual => part(launch.inputs[2], 0),
        };
        let channels = number(linear.outputs());
        let tokens = Argument::Count(Count::Tokens);
        match method {
            Method::Records(config) => vec![fields::<params::Linear>([
                ("x", map(part(x, 0), MapShape::of(Extent::Tokens, |rows| linear.x(config, rows)))),
                ("records", part(weight, 0)),
                ("token_scales", part(x, 1)),
                ("channel_scales", part(weight, 1)),
                ("addend", addend),
                ("out", out.clone()),
                ("tokens", tokens),
                ("channels", channels),
                ("steps", number(linear.steps())),
            ])],
            Method::Workspace(config) => {
                let fp8 = LinearFp8::from(*linear);
                let [rows, cols] = fp8.workspace();
                let decoded = self.region("decoded weight", rows * cols, Extent::Once);
                let decode = fields::<DecodeWeight>([
                    ("records", part(weight, 0)),
                    ("rows", decoded.clone()),
                    ("steps", number(linear.steps())),
                ]);
                let product = fields::<params::LinearFp8>([
                    ("x", map(part(x, 0), MapShape::of(Extent::Tokens, |rows| fp8.x(config, rows)))),
                    ("weight", map(decoded, MapShape::of(Extent::Once, |_| fp8.weight(config)))),
                    ("token_scales", part(x, 1)),
                    ("channel_scales", part(weight, 1)),
                    ("addend", addend),
                    ("out", out.clone()),
                    ("tokens", tokens),
                    ("channels", channels),
                    ("steps", number(fp8.steps())),
                    ("band", number(config.band(CTAS))),
                ]);
                vec![decode, product]
            }
        }
    }
}

/// A TMA descriptor of what begins there.
pub(super) fn map(of: Argument, shape: MapShape) -> Argument {
    Argument::Map { of: Box::new(of), shape }
}
