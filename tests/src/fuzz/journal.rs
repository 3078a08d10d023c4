//! What an earlier quantization left: a block, and the streams behind it.

use fireq::build::Origin;
use fireq::calibrate::Folder;
use fireq_ir::verify::verify;
use fireq_passes::{Journal, Resumed};
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::{files, scratch, show};

/// A graph, findings and streams; the hash over the first two is that of a forger. What is resumed is valid.
pub fn journal(bytes: &[u8]) {
    let [graph, findings, streams] = files(bytes);
    let (Ok(graph), Ok(findings)) = (str::from_utf8(graph), str::from_utf8(findings)) else { return };
    let hash = blake3::hash(format!("{graph}\0{findings}").as_bytes()).to_hex().to_string();
    let metadata = [("graph", graph), ("findings", findings), ("hash", &hash)];
    let metadata = metadata.map(|(name, text)| (name.to_string(), text.to_string())).into();
    let weight = TensorView::new(Dtype::U8, vec![8], &[1; 8]).expect("eight bytes");
    let block = serialize([("w", weight)], Some(metadata)).expect("a small file");
    let walk = &blake3::hash(b"key\0walk").to_hex()[..16];
    let [block_file, streams_file] = ["block", "streams"].map(|kind| format!("{walk}/0000.{kind}"));
    let dir = scratch::folder("journal", &[(&block_file, &block), (&streams_file, streams)]);
    let origin = Origin { key: "key".into(), ..Origin::default() };
    let Resumed { finished, streams } = Folder::new(dir, origin, |_| ()).resume("walk");
    assert!(finished.len() <= 1);
    for graph in finished.iter().filter_map(|finished| finished.graph.as_ref()) {
        verify(graph).unwrap_or_else(|e| {
            show(&e);
            panic!("what is resumed is valid: {e}")
        });
    }
    for stream in &streams {
        assert_eq!(stream.to_f32().len(), stream.rows() * stream.cols(), "{:?}", stream.ty);
    }
}
