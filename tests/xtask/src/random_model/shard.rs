//! A file of random weights of which any piece can be made.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{Tensor, bytes, numbers};

/// A safetensors file that is not stored.
pub struct Shard {
    /// Its name.
    pub name: String,
    header: Vec<u8>,
    /// Where each tensor ends behind the header, in elements, and whether it is a vector.
    ends: Vec<(u64, bool)>,
    seed: u64,
}

impl Shard {
    /// That of some tensors.
    pub fn new(name: String, tensors: &[Tensor], seed: u64) -> Self {
        let (mut header, mut ends, mut offset) = (Map::new(), vec![], 0);
        for tensor in tensors {
            let end = offset + bytes(tensor);
            let entry = json!({"dtype": "BF16", "shape": tensor.1, "data_offsets": [offset, end]});
            header.insert(tensor.0.clone(), entry);
            ends.push((end / 2, tensor.1.len() == 1));
            offset = end;
        }
        let mut json = Value::Object(header).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
        Shard { name, header, ends, seed }
    }

    /// Its bytes.
    #[allow(clippy::len_without_is_empty, reason = "it has a header")]
    pub fn len(&self) -> u64 {
        self.header.len() as u64 + 2 * self.ends.last().map_or(0, |end| end.0)
    }

    /// The bytes from `at` on, which are not more than there are.
    pub fn read_at(&self, at: u64, mut to: &mut [u8]) {
        let start = self.header.len() as u64;
        if at < start {
            let from = &self.header[at as usize..];
            let (head, rest) = to.split_at_mut(from.len().min(to.len()));
            head.copy_from_slice(&from[..head.len()]);
            to = rest;
        }
        self.read_numbers(at.max(start) - start, to);
    }

    /// Whole elements are made, of which a piece may begin and end inside.
    fn read_numbers(&self, at: u64, to: &mut [u8]) {
        let (mut element, end) = (at / 2, (at + to.len() as u64).div_ceil(2));
        let count = (end - element) as usize;
        let (mut noise, mut made) = (vec![0; 4 * count], vec![0; 2 * count]);
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        // Each element takes a word of four bytes.
        random.set_word_pos(u128::from(element));
        random.fill_bytes(&mut noise);
        let (mut noise, mut rest) = (&noise[..], &mut made[..]);
        let first = self.ends.partition_point(|(end, _)| *end <= element);
        for (tensor_end, vector) in &self.ends[first..] {
            let count = (end.min(*tensor_end) - element) as usize;
            let (now, later) = rest.split_at_mut(2 * count);
            numbers(*vector, &noise[..4 * count], now);
            (rest, noise, element) = (later, &noise[4 * count..], element + count as u64);
            if element == end {
                break;
            }
        }
        to.copy_from_slice(&made[(at % 2) as usize..][..to.len()]);
    }
}
