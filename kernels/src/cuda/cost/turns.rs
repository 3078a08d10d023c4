//! Why consumer warpgroups do not take tiles in turn here, as they may with decoded weights: a tile of one has 64 channels, whose
//! tokens arrive more slowly than they are multiplied. `cargo test -p fireq-kernels in_turn -- --nocapture` prints it.

use super::*;

/// A step of a tile of 64 channels takes an SM's port longer than its tensor cores, whatever the tokens; one of 128 does not from
/// the tile on that many tokens get.
#[test]
fn tiles_in_turn_would_wait_for_their_tokens() {
    for tokens in [64, 128, 256] {
        let cycles = [1, 2].map(|warpgroups| {
            let (stages, steps, split, cluster, promotion, band) = (4, 2, 1, 1, 0, 0);
            let config = LinearConfig { tokens, warpgroups, stages, steps, split, cluster, promotion, band };
            [arrival_cycles(&config, 128, 1), tensor_cycles(&config, warpgroups as f64)]
        });
        let [[alone, turn], [both, together]] = cycles;
        eprintln!(
            "{tokens:3} tokens: a step of 64 channels arrives in {alone:.0} cycles and is multiplied in {turn:.0}, of 128 in \
             {both:.0} and {together:.0}"
        );
        assert!(alone > turn);
        assert!(both < together || tokens < 128);
    }
}
