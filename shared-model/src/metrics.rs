//! Ranking metrics of single events: one relevant item each, so averages over events are the usual definitions.
//!
//! A *position* is zero-based; `None` means that the relevant item was not ranked at all, which counts as worst.
//! `labels` holds those over many events with labels: classification and regression.
//! Not here: averaging, windows and fading (the server's `evaluate`).

pub mod labels;

/// NDCG@k with one relevant item: `1 / log2(position + 2)` within the first `k`, else 0; the ideal DCG is 1.
///
/// Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques". `k = 0` gives 0.
#[must_use]
pub fn ndcg_at_k(position: Option<usize>, k: usize) -> f64 {
    match position {
        Some(position) if position < k => 1.0 / (position as f64 + 2.0).log2(), // positions are far below 2^53
        Some(_) | None => 0.0,
    }
}

/// Hit rate@k, with one relevant item the same as recall@k: 1 within the first `k`, else 0.
#[must_use]
pub fn hit_rate_at_k(position: Option<usize>, k: usize) -> f64 {
    match position {
        Some(position) if position < k => 1.0,
        Some(_) | None => 0.0,
    }
}

/// Reciprocal rank, `1 / (position + 1)`, else 0; its average is MRR.
#[must_use]
pub fn mrr(position: Option<usize>) -> f64 {
    position.map_or(0.0, |position| 1.0 / (position as f64 + 1.0)) // positions are far below 2^53
}

/// Ranking AUC with one relevant item: the share of the other candidates that stand behind it,
/// `(candidates − rank) / (candidates − 1)` with ranks from 1; `None` where there is no other candidate.
///
/// Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve", for a single positive.
#[must_use]
pub fn ranking_auc(position: Option<usize>, num_candidates: usize) -> Option<f64> {
    if num_candidates < 2 {
        return None;
    }
    let num_behind = position.map_or(0, |position| num_candidates.saturating_sub(position + 1));
    Some(num_behind as f64 / (num_candidates - 1) as f64) // counts are far below 2^53
}

/// Log loss of one choice among many: `−ln softmax(scores)[item_idx]`, at most that of a probability of `1e-15`.
///
/// A score of −∞ is no candidate. `None` where the item is none or a score is NaN.
#[must_use]
pub fn softmax_log_loss(scores: &[f32], item_idx: usize) -> Option<f64> {
    let score = f64::from(*scores.get(item_idx)?);
    let largest = f64::from(scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = scores
        .iter()
        .map(|other| (f64::from(*other) - largest).exp())
        .sum();
    let loss = largest + sum.ln() - score;
    (!loss.is_nan() && score.is_finite()).then(|| loss.clamp(0.0, -PROBABILITY_MIN.ln()))
}

/// Log loss of one label: `−ln p` for a positive, `−ln(1 − p)` for a negative.
///
/// The probability is kept `1e-15` away from 0 and 1, so that one certain mistake costs 34.5 and not infinity.
/// NaN gives NaN.
#[must_use]
pub fn log_loss(probability: f64, label: bool) -> f64 {
    let probability = probability.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN);
    if label {
        -probability.ln()
    } else {
        -(1.0 - probability).ln()
    }
}

/// How close to certainty a probability may come.
const PROBABILITY_MIN: f64 = 1e-15;

/// Position of item `item_idx` when all items are ordered by score, best first, ties by lower index;
/// `None` where there is no such item or its score is NaN.
#[must_use]
pub fn position_of(scores: &[f32], item_idx: usize) -> Option<usize> {
    let score = *scores.get(item_idx)?;
    if score.is_nan() {
        return None;
    }
    let (before, after) = scores.split_at(item_idx);
    let num_before = before.iter().filter(|other| **other >= score).count();
    let num_after = after.iter().filter(|other| **other > score).count();
    Some(num_before + num_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ndcg_is_one_at_the_top_and_falls_to_zero_at_k() {
        assert_eq!(ndcg_at_k(Some(0), 10), 1.0);
        assert!((ndcg_at_k(Some(1), 10) - 1.0 / 3_f64.log2()).abs() < 1e-12);
        assert!(ndcg_at_k(Some(9), 10) > 0.0);
        assert_eq!(ndcg_at_k(Some(10), 10), 0.0);
        assert_eq!(ndcg_at_k(None, 10), 0.0);
        assert_eq!(ndcg_at_k(Some(0), 0), 0.0);
    }

    #[test]
    fn hit_rate_and_reciprocal_rank_know_the_unranked() {
        assert_eq!(hit_rate_at_k(Some(9), 10), 1.0);
        assert_eq!(hit_rate_at_k(Some(10), 10), 0.0);
        assert_eq!(hit_rate_at_k(None, 10), 0.0);
        assert_eq!(mrr(Some(3)), 0.25);
        assert_eq!(mrr(None), 0.0);
    }

    #[test]
    fn log_loss_of_a_certain_mistake_is_finite() {
        assert!((log_loss(0.5, true) - std::f64::consts::LN_2).abs() < 1e-12);
        assert!((log_loss(0.0, true) - 34.538_776).abs() < 1e-5);
        assert!(log_loss(1.0, false).is_finite());
        assert!(log_loss(1.0, true) < 1e-14);
    }

    #[test]
    fn auc_is_the_share_of_the_others_behind() {
        assert_eq!(ranking_auc(Some(0), 5), Some(1.0));
        assert_eq!(ranking_auc(Some(1), 5), Some(0.75));
        assert_eq!(ranking_auc(Some(4), 5), Some(0.0));
        assert_eq!(ranking_auc(None, 5), Some(0.0));
        assert_eq!(ranking_auc(Some(0), 1), None, "nothing to stand before");
    }

    #[test]
    fn softmax_loss_leaves_out_what_is_no_candidate() {
        let scores = [0.0, 3_f32.ln(), f32::NEG_INFINITY];
        let loss = softmax_log_loss(&scores, 0).expect("a candidate");
        assert!((loss - 4_f64.ln()).abs() < 1e-6, "1 of 1 + 3: {loss}");
        assert_eq!(softmax_log_loss(&scores, 2), None);
        assert_eq!(softmax_log_loss(&scores, 9), None);
        assert_eq!(softmax_log_loss(&[f32::NAN, 1.0], 1), None);
        let certain_mistake = softmax_log_loss(&[0.0, 500.0], 0).expect("a candidate");
        assert!((certain_mistake - 34.538_776).abs() < 1e-5);
    }

    #[test]
    fn position_counts_better_scores_and_earlier_ties() {
        let scores = [0.5, 2.0, 2.0, f32::NAN, -1.0];
        assert_eq!(position_of(&scores, 1), Some(0));
        assert_eq!(position_of(&scores, 2), Some(1));
        assert_eq!(position_of(&scores, 4), Some(3));
        assert_eq!(position_of(&scores, 3), None);
        assert_eq!(position_of(&scores, 5), None);
    }
}
