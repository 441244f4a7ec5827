//! Dropout masks from a seed: 0, or `1 / keep` so that the mean stays (Srivastava et al. 2014).
//!
//! A mask value depends on the seed, the place in the model and the position alone, so it is the same
//! however the batch is spread over threads.

use super::vector::vectorized;

/// Where in the model a mask applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// Id rows left out of a step.
    IdRows,
    /// What the first layer reads.
    Embedding,
    /// Attention weights of a layer.
    Attention(usize),
    /// Output of the attention of a layer.
    AttentionOutput(usize),
    /// Output of the feed-forward part of a layer.
    FeedForward(usize),
}

impl Site {
    fn number(self) -> u64 {
        match self {
            Self::IdRows => 0,
            Self::Embedding => 1,
            Self::Attention(layer) => 2 + 3 * layer as u64, // usize fits u64
            Self::AttentionOutput(layer) => 3 + 3 * layer as u64, // likewise
            Self::FeedForward(layer) => 4 + 3 * layer as u64, // likewise
        }
    }
}

/// Fills `mask` with `len` values for the positions from `first` on; leaves it empty where `share` is 0.
pub(super) fn draw(
    mask: &mut Vec<f32>,
    len: usize,
    share: f64,
    seed: u64,
    site: Site,
    first: usize,
) {
    mask.clear();
    if share <= 0.0 {
        return;
    }
    mask.resize(len, 0.0);
    let key = split_mix(seed ^ split_mix(site.number()));
    let (key_low, key_high) = (key as u32, (key >> 32) as u32); // both halves
    let threshold = (share * f64::from(u32::MAX)) as u32; // saturates, which is what a share of 1 wants
    let scale = (1.0 / (1.0 - share)) as f32; // a factor, rounded
    let first = first as u32; // positions beyond 2^32 start over
    vectorized!({
        for (position, value) in (0_u32..).zip(mask.iter_mut()) {
            let random = mix(position.wrapping_add(first), key_low, key_high);
            *value = if random < threshold { 0.0 } else { scale };
        }
    });
}

/// Two rounds of a multiply-and-shift hash of 32 bits, with a key before each.
#[inline(always)]
fn mix(position: u32, key_low: u32, key_high: u32) -> u32 {
    let mut x = position.wrapping_mul(0x9E37_79B9) ^ key_low;
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x ^= key_high;
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// One step of SplitMix64 (Steele, Lea & Flood 2014).
fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 100_000;

    fn mask(share: f64, seed: u64, site: Site, first: usize, len: usize) -> Vec<f32> {
        let mut mask = Vec::new();
        draw(&mut mask, len, share, seed, site, first);
        mask
    }

    #[test]
    fn the_share_is_zeroed_and_the_mean_stays() {
        for share in [0.1, 0.2, 0.5] {
            let mask = mask(share, 7, Site::Embedding, 0, LEN);
            let zeroed = mask.iter().filter(|value| **value == 0.0).count() as f64 / LEN as f64;
            assert!((zeroed - share).abs() < 0.005, "{zeroed} of {share}");
            assert!((mask.iter().sum::<f32>() / LEN as f32 - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn seeds_sites_and_neighbours_are_unrelated() {
        let first = mask(0.5, 7, Site::Embedding, 0, LEN);
        let others = [
            mask(0.5, 8, Site::Embedding, 0, LEN),
            mask(0.5, 7, Site::FeedForward(0), 0, LEN),
            mask(0.5, 7, Site::Embedding, 1, LEN),
            mask(0.5, 7, Site::Embedding, 64, LEN),
        ];
        for other in others {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count() as f64;
            assert!((same / LEN as f64 - 0.5).abs() < 0.01);
        }
    }

    #[test]
    fn a_part_of_the_positions_has_the_part_of_the_mask() {
        let whole = mask(0.2, 7, Site::Attention(1), 0, LEN);
        let part = mask(0.2, 7, Site::Attention(1), 1000, 77);
        assert_eq!(part, whole[1000..1077]);
    }
}
