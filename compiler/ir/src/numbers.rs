//! Numbers as bytes: written exactly, and those that are none, NaN and infinities, found at memory speed.

use crate::DType;

/// The index of the first NaN or infinity in bytes of numbers; `None` for dtypes that have none.
pub fn first_non_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        DType::F32 => position32(bytes, 0x7f80_0000),
        DType::F16 => position16(bytes, 0x7c00),
        DType::BF16 => position16(bytes, 0x7f80),
        DType::E4M3 => bytes.iter().position(|b| b & 0x7f == 0x7f),
        DType::I4 | DType::I32 => None,
    }
}

/// The bytes of numbers in a dtype that holds them exactly.
pub(crate) fn encode(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    let each = |f: &dyn Fn(f32) -> Option<Vec<u8>>| -> Option<Vec<u8>> {
        let parts: Option<Vec<Vec<u8>>> = values.iter().map(|v| f(*v)).collect();
        parts.map(|p| p.concat())
    };
    match dtype {
        DType::F32 => each(&|v| Some(v.to_le_bytes().to_vec())),
        DType::BF16 => each(&|v| {
            let x = half::bf16::from_f32(v);
            (x.to_f32() == v).then(|| x.to_le_bytes().to_vec())
        }),
        DType::F16 => each(&|v| {
            let x = half::f16::from_f32(v);
            (x.to_f32() == v).then(|| x.to_le_bytes().to_vec())
        }),
        // Compared in f64, which holds every i32: 2147483648 would come back as itself in f32.
        DType::I32 => {
            each(&|v| (f64::from(v as i32) == f64::from(v)).then(|| (v as i32).to_le_bytes().to_vec()))
        }
        _ => None,
    }
}

/// Elements whose exponent bits are looked at together, so that the scan of finite data runs at memory speed.
pub(crate) const SCAN: usize = 4096;

/// The first 16-bit element with every bit of `exponent` set.
fn position16(bytes: &[u8], exponent: u16) -> Option<usize> {
    let hit = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent;
    let any = |block: &[u8]| block.chunks_exact(2).fold(false, |found, b| found | hit(b));
    let block = bytes.chunks(2 * SCAN).position(any)?;
    bytes[block * 2 * SCAN..].chunks_exact(2).position(hit).map(|i| block * SCAN + i)
}

/// The first 32-bit element with every bit of `exponent` set.
fn position32(bytes: &[u8], exponent: u32) -> Option<usize> {
    let hit = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & exponent == exponent;
    let any = |block: &[u8]| block.chunks_exact(4).fold(false, |found, b| found | hit(b));
    let block = bytes.chunks(4 * SCAN).position(any)?;
    bytes[block * 4 * SCAN..].chunks_exact(4).position(hit).map(|i| block * SCAN + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConstData;

    fn holding(bytes: Vec<u8>) -> ConstData {
        ConstData::from_bytes(bytes)
    }

    #[test]
    fn the_first_non_finite_number_is_found_wherever_it_stands() {
        for at in [0, 1, SCAN - 1, SCAN, 2 * SCAN + 7] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.5f32; 3 * SCAN];
                values[at] = bad;
                let bf16 = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
                let f16 = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
                assert_eq!(ConstData::from_f32(&values).first_non_finite(DType::F32), Some(at));
                assert_eq!(holding(bf16).first_non_finite(DType::BF16), Some(at));
                assert_eq!(holding(f16).first_non_finite(DType::F16), Some(at));
            }
        }
    }

    #[test]
    fn the_largest_finite_numbers_pass() {
        assert_eq!(ConstData::from_f32(&[f32::MAX, f32::MIN]).first_non_finite(DType::F32), None);
        let f16 = half::f16::MAX.to_le_bytes().to_vec();
        assert_eq!(holding(f16).first_non_finite(DType::F16), None);
    }
}
