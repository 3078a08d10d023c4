//! Keys and values from pages into the workspace of prefill, at the ends of blocks, tiles and pages.

use fireq_ir::e4m3;
use fireq_kernels::cuda::{gather_pages, params, value_position};
use fireq_kernels::layout::pitch;
use fireq_kernels::pages::{Pages, Part};

use super::device::{UNTOUCHED, device};
use super::oracle::pitched;
use super::pool::{Pool, rows};

/// Whether a byte is this number: zeros of either sign are one.
fn is(byte: u8, number: f32) -> bool {
    e4m3::decode(byte).to_bits() == number.to_bits() || (number == 0.0 && e4m3::decode(byte) == 0.0)
}

/// Copies `keys` positions, of which the sequence has some more, into workspaces with room for `context`.
fn check(layout: Pages, keys: usize) {
    let Some(mut gpu) = device() else { return };
    let what = format!("{layout:?}, {keys} keys");
    let (context, kv) = (keys.next_multiple_of(16) + 16, layout.kv_heads * layout.head);
    let key_bytes = layout.kv_heads * pitch(layout.head);
    let [k, v] = [1, 2].map(|seed| rows(keys + 5, layout, seed));
    let mut pool = Pool::new(layout, &[keys + 5], UNTOUCHED);
    pool.write(0, Part::Keys, &k, 0..keys + 5);
    pool.write(0, Part::Values, &v, 0..keys + 5);
    let params = params::GatherPages {
        pages: gpu.put("pages", &pool.bytes),
        table: gpu.put("table", &pool.table_bytes()),
        k_workspace: gpu.space("k workspace", context * key_bytes),
        v_workspace: gpu.space("v workspace", context * kv),
        page_stride: layout.bytes() as u32,
        workspace_stride: context as u32,
        keys: keys as u32,
    };
    gpu.launch(&gather_pages(layout).unwrap(), 1, keys, &params);
    let found_v = gpu.bytes(params.v_workspace, context * kv);
    let found_k = gpu.bytes(params.k_workspace, context * key_bytes);
    let of_heads = found_k.chunks(pitch(layout.head));
    let found_k: Vec<u8> = of_heads.flat_map(|key| key[..layout.head].to_vec()).collect();
    let between = pitched(&found_k, layout.head, UNTOUCHED);
    assert_eq!(gpu.bytes(params.k_workspace, between.len()), between, "between heads: {what}");
    let [k, v] = [k, v].map(|tensor| tensor.to_f32());
    for row in 0..context {
        let place = row / 16 * 16 + value_position(row % 16);
        for channel in 0..kv {
            let [key, value] = [found_k[row * kv + channel], found_v[channel * context + place]];
            if row < keys {
                let at = row * kv + channel;
                assert!(is(key, k[at]), "key {row}, channel {channel}: {key:#x}, {}: {what}", k[at]);
                assert!(is(value, v[at]), "value {row}, channel {channel}: {value:#x}, {}: {what}", v[at]);
            } else {
                assert_eq!([key, value], [UNTOUCHED; 2], "row {row}, channel {channel}: {what}");
            }
        }
    }
}

#[test]
fn positions_at_the_ends_of_blocks_tiles_and_pages_are_gathered() {
    let layout = Pages { kv_heads: 2, head: 64, keys: 64 };
    for keys in [1, 15, 16, 17, 63, 64, 65, 129] {
        check(layout, keys);
    }
    check(Pages { keys: 128, ..layout }, 128);
    check(Pages { keys: 128, ..layout }, 200);
}

#[test]
fn heads_of_any_size_are_gathered() {
    for head in [128, 256, 80, 48, 96, 100, 20] {
        check(Pages { kv_heads: 2, head, keys: 64 }, 70);
    }
}
