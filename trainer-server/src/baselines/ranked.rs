//! What one system says of one event: where the taken item stood, how likely it was, and the ten best.
//!
//! Input: scores of all items and the items that are left out. Not here: which items those are
//! (`baselines::timelines`), and sums over events (`figures`).

use shared_model::metrics::{position_of, softmax_log_loss};

/// Items in a list as it is shown.
pub const TOP_LEN: usize = 10;
/// Stands in a shorter list where it ends, and for items that the dataset does not have.
pub const NO_ITEM: u32 = u32::MAX;

/// One system's answer to one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Rank of the taken item, from 1; `None` where it was not ranked, which counts as a miss.
    pub rank: Option<u32>,
    /// Items that it was ranked among, itself included.
    pub num_candidates: u32,
    /// `−ln` of its probability; NaN where the scores are no logits.
    pub log_loss: f32,
    /// The best items, best first, filled up with [`NO_ITEM`].
    pub top: [u32; TOP_LEN],
}

/// Whether a softmax over the scores gives probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Trained with a softmax.
    Logits,
    /// Good for an order alone.
    Ordinal,
}

impl Ranked {
    /// The answer of a system that has nothing to rank by.
    pub const NOTHING: Self = Self {
        rank: None,
        num_candidates: 0,
        log_loss: f32::NAN,
        top: [NO_ITEM; TOP_LEN],
    };

    /// Ranks `target` among all items but `removed`; ties go to the lower index.
    ///
    /// `removed` never holds the target. Without a target only the list is made, and the loss of a system
    /// that gives probabilities is that of an item it holds impossible.
    #[must_use]
    pub fn of(
        scores: &[f32],
        target: Option<u32>,
        removed: impl IntoIterator<Item = u32>,
        kind: Scores,
    ) -> Self {
        let mut scores = scores.to_vec();
        let mut num_removed = 0;
        for item_idx in removed {
            scores[item_idx as usize] = f32::NEG_INFINITY;
            num_removed += 1;
        }
        let position = target.and_then(|target| position_of(&scores, target as usize));
        let log_loss = match kind {
            Scores::Ordinal => f32::NAN,
            Scores::Logits => target
                .and_then(|target| softmax_log_loss(&scores, target as usize))
                .unwrap_or_else(|| shared_model::metrics::log_loss(0.0, true))
                as f32, // below 35
        };
        Self {
            rank: position.map(|position| position as u32 + 1), // fits: NUM_ITEMS_MAX is 2^20
            num_candidates: (scores.len() - num_removed) as u32, // fits likewise
            log_loss,
            top: best(&scores),
        }
    }
}

/// The best items, best first, ties by lower index; −∞ is no candidate.
fn best(scores: &[f32]) -> [u32; TOP_LEN] {
    let mut top = [NO_ITEM; TOP_LEN];
    let mut best_scores = [f32::NEG_INFINITY; TOP_LEN];
    for (item_idx, score) in scores.iter().enumerate() {
        if *score <= best_scores[TOP_LEN - 1] || score.is_nan() {
            continue;
        }
        // In ascending order of the index, so an equal score stays behind.
        let place = best_scores.partition_point(|better| better >= score);
        best_scores[place..].rotate_right(1);
        top[place..].rotate_right(1);
        best_scores[place] = *score;
        top[place] = item_idx as u32; // fits: NUM_ITEMS_MAX is 2^20
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_breaks_ties_by_index_and_skips_removed_items() {
        let scores = [2.0, 5.0, 2.0, 2.0, 9.0];
        let ranked = Ranked::of(&scores, Some(2), [], Scores::Ordinal);
        assert_eq!((ranked.rank, ranked.num_candidates), (Some(4), 5));
        assert_eq!(ranked.top[..6], [4, 1, 0, 2, 3, NO_ITEM]);
        let ranked = Ranked::of(&scores, Some(2), [0, 4], Scores::Ordinal);
        assert_eq!((ranked.rank, ranked.num_candidates), (Some(2), 3));
        assert_eq!(ranked.top[..4], [1, 2, 3, NO_ITEM]);
        assert!(ranked.log_loss.is_nan());
    }

    #[test]
    fn the_list_holds_the_ten_best_in_order() {
        let scores: Vec<f32> = (0..100).map(|idx| ((idx * 37) % 100) as f32).collect();
        let top = Ranked::of(&scores, Some(0), [], Scores::Ordinal).top;
        let listed: Vec<f32> = top.iter().map(|idx| scores[*idx as usize]).collect();
        assert_eq!(
            listed,
            (90..100)
                .rev()
                .map(|score| score as f32)
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn probabilities_are_over_what_is_left() {
        let scores = [0.0, 3_f32.ln(), 50.0];
        let ranked = Ranked::of(&scores, Some(0), [2], Scores::Logits);
        assert!((ranked.log_loss - 4_f32.ln()).abs() < 1e-6);
        let unknown = Ranked::of(&scores, None, [2], Scores::Logits);
        assert_eq!(unknown.rank, None);
        assert!((unknown.log_loss - 34.538_776).abs() < 1e-4);
        assert_eq!(unknown.top[..3], [1, 0, NO_ITEM]);
    }
}
