//! The memory of a product on a GPU, filled with numbers of no order.

use fireq_ir::DType;
use fireq_kernels::TensorMapShape;
use fireq_kernels::cuda::cost_fp8::CTAS;
use fireq_kernels::cuda::params::{self, Params};
use fireq_kernels::cuda::tuning::Method;
use fireq_kernels::cuda::{Addend, Linear, LinearFp8, Output};
use fireq_kernels::layout::pitch;
use fireq_kernels::records::{CODES, ROWS, record_bytes};
use fireq_runtime::cuda::{CudaError, DeviceBytes, Gpu, encode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Operands of a product of some tokens, and room for what it gives.
pub(super) struct Operands {
    linear: Linear,
    tokens: usize,
    x: DeviceBytes,
    records: DeviceBytes,
    token_scales: DeviceBytes,
    channel_scales: DeviceBytes,
    addend: DeviceBytes,
    workspace: DeviceBytes,
    out: DeviceBytes,
}

impl Operands {
    /// Fills the memory of a GPU.
    pub fn new(gpu: &Gpu, linear: &Linear, tokens: usize) -> Result<Self, CudaError> {
        let mut random = Random(ChaCha8Rng::seed_from_u64(tokens as u64));
        let decoded = LinearFp8::from(*linear);
        let [rows, cols] = decoded.workspace();
        let outputs = tokens * linear.outputs();
        let addend = match linear.addend {
            Addend::Nothing => vec![],
            Addend::Bias(DType::F32) => random.floats(linear.channels),
            Addend::Bias(_) => random.halves(linear.channels),
            Addend::Residual => random.floats(outputs),
        };
        let width = if linear.output == Output::Bf16 { 2 } else { 4 };
        Ok(Operands {
            linear: *linear,
            tokens,
            x: gpu.upload(&random.codes(tokens * pitch(linear.cols)))?,
            records: gpu.upload(&random.records(rows / ROWS * linear.steps(), linear.group))?,
            token_scales: gpu.upload(&random.floats(tokens))?,
            channel_scales: gpu.upload(&random.floats(linear.channels))?,
            addend: gpu.upload(&addend)?,
            workspace: gpu.allocate(rows * cols)?,
            out: gpu.allocate(width * outputs)?,
        })
    }

    /// What the product gave.
    pub fn output(&self) -> Result<Vec<u8>, CudaError> {
        self.out.read()
    }

    /// Bytes of what it gives.
    pub fn output_bytes(&self) -> usize {
        self.out.len()
    }

    /// The parameters of each kernel of a method, in order.
    pub fn params(&self, method: &Method) -> Result<Vec<Vec<u8>>, CudaError> {
        let Operands { linear, tokens, .. } = *self;
        let addend = if self.addend.is_empty() { 0 } else { self.addend.address() };
        let [token_scales, channel_scales, out] =
            [&self.token_scales, &self.channel_scales, &self.out].map(DeviceBytes::address);
        let [tokens_now, channels, steps] = [tokens, linear.outputs(), linear.steps()].map(|n| n as u32);
        match method {
            Method::Records(config) => Ok(vec![
                params::Linear {
                    x: map(&linear.x(config, tokens), &self.x)?,
                    records: self.records.address(),
                    token_scales,
                    channel_scales,
                    addend,
                    out,
                    tokens: tokens_now,
                    channels,
                    steps,
                }
                .bytes(),
            ]),
            Method::Workspace(config) => {
                let decoded = LinearFp8::from(linear);
                let decode = params::DecodeWeight {
                    records: self.records.address(),
                    rows: self.workspace.address(),
                    steps,
                };
                let product = params::LinearFp8 {
                    x: map(&decoded.x(config, tokens), &self.x)?,
                    weight: map(&decoded.weight(config), &self.workspace)?,
                    token_scales,
                    channel_scales,
                    addend,
                    out,
                    tokens: tokens_now,
                    channels,
                    steps,
                    band: config.band(CTAS) as u32,
                };
                Ok(vec![decode.bytes(), product.bytes()])
            }
        }
    }
}

fn map(shape: &TensorMapShape, memory: &DeviceBytes) -> Result<params::TensorMap, CudaError> {
    encode(shape, memory.address()).map(params::TensorMap)
}

/// Numbers near 1, in the formats that operands have.
struct Random(ChaCha8Rng);

/// Numbers that are drawn; longer operands repeat them.
const DRAWN: usize = 1 << 16;

impl Random {
    fn repeated(&mut self, count: usize, size: usize, one: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
        let drawn: Vec<u8> =
            (0..count.min(DRAWN)).flat_map(|_| one(self.0.random::<u32>())).collect::<Vec<_>>();
        drawn.iter().copied().cycle().take(count * size).collect()
    }

    /// Between 1/2 and 1.
    fn floats(&mut self, count: usize) -> Vec<u8> {
        self.repeated(count, 4, |r| (0x3f00_0000 | r >> 9).to_le_bytes().to_vec())
    }

    /// Sixteen bits that are numbers of this size as bf16 and as f16.
    fn halves(&mut self, count: usize) -> Vec<u8> {
        self.repeated(count, 2, |r| (0x3c00 | (r & 0xff) as u16).to_le_bytes().to_vec())
    }

    /// E4M3 of both signs between 1/8 and 2.
    fn codes(&mut self, count: usize) -> Vec<u8> {
        self.repeated(count, 1, |r| vec![(r & 0x80) as u8 | (0x20 + (r & 0x1f) as u8)])
    }

    /// Records of weights: any codes, under positive scales.
    fn records(&mut self, count: usize, group: usize) -> Vec<u8> {
        let mut record = self.repeated(CODES, 1, |r| vec![r as u8]);
        record.extend(self.repeated(record_bytes(group) - CODES, 1, |r| vec![0x28 | (r & 7) as u8]));
        record.iter().copied().cycle().take(count * record.len()).collect()
    }
}
