#pragma once
#include "ptx/types.cuh"

// The order in which CTAs take the tiles of a product, one after another.

namespace fireq {

/// Where a tile lies, counted in tiles.
struct TilePlace {
    u32 channels, tokens;
};

/// The n-th tile: bands of `band` token tiles, one after the other, and in a band, for every tile of channels, those tokens.
/// Tiles that are multiplied at a time make about a square, whose rows and columns stay in the cache.
__device__ inline TilePlace tile_place(u32 n, u32 channel_tiles, u32 token_tiles, u32 band) {
    u32 first = n / (band * channel_tiles) * band;
    u32 width = min(band, token_tiles - first), within = n - first * channel_tiles;
    return {within / width, first + within % width};
}

/// Calls `visit` with the first token and channel of every tile of this CTA, in order. Tiles have `tile_channels` outputs of
/// `channels`. CTAs of a cluster take neighbours in channels at the same time; the last may have none that exist.
template <typename Tile, typename Visit>
__device__ inline void for_each_tile(u32 tokens, u32 channels, u32 tile_channels, u32 band, u32 rank, Visit visit) {
    u32 all = tile_channels * Tile::CLUSTER;
    u32 channel_tiles = (channels + all - 1) / all, token_tiles = (tokens + Tile::TOKENS - 1) / Tile::TOKENS;
    for (u32 n = blockIdx.x / Tile::CLUSTER; n < channel_tiles * token_tiles; n += gridDim.x / Tile::CLUSTER) {
        TilePlace place = tile_place(n, channel_tiles, token_tiles, band);
        visit(place.tokens * Tile::TOKENS, place.channels * all + rank * tile_channels);
    }
}

}  // namespace fireq
