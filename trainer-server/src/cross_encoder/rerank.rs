//! Reranking: the top of a ranked list ordered anew by both scores.
//!
//! ```text
//! fused = (1 − w)·z(base) + w·z(cross)      z: minus the mean of the list, over its deviation
//! ```
//! Scores of the two have different sizes, hence z. `w` is chosen on events before those it is reported on.
//! Not here: where the list comes from (`scene`).

use shared_model::metrics::ndcg_at_k;

use super::{CrossEncoderError, CrossScorer};

/// Weights that are tried; 0 leaves the list as it is.
pub const WEIGHTS: [f32; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Length of the list that is shown.
pub const SHOWN_LEN: usize = 10;

/// One item of a ranked list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listed<'a> {
    /// Its text.
    pub text: &'a str,
    /// What it was ranked by.
    pub score: f32,
}

/// Order of the list after its first `num_rescored` items were scored by `scorer`; the rest stays behind them.
///
/// # Errors
/// The weight is not from 0 to 1, or scoring failed.
pub fn rerank(
    scorer: &CrossScorer,
    user: &str,
    list: &[Listed<'_>],
    num_rescored: usize,
    weight: f32,
) -> Result<Vec<usize>, CrossEncoderError> {
    if !(0.0..=1.0).contains(&weight) {
        return Err(CrossEncoderError::Option {
            field: "weight",
            actual: weight.to_string(),
            expected: "0 to 1",
        });
    }
    let top = &list[..num_rescored.min(list.len())];
    let texts: Vec<&str> = top.iter().map(|listed| listed.text).collect();
    let base: Vec<f32> = top.iter().map(|listed| listed.score).collect();
    let scores = scorer.score_items(user, &texts)?;
    let cross: Vec<f32> = scores.iter().map(|score| score.click_logit).collect();
    let mut order = order_by(&fuse(&base, &cross, weight));
    order.extend(top.len()..list.len());
    Ok(order)
}

/// Both scores of a list in one.
#[must_use]
pub fn fuse(base: &[f32], cross: &[f32], weight: f32) -> Vec<f32> {
    let (base, cross) = (standardized(base), standardized(cross));
    let both = base.iter().zip(&cross);
    both.map(|(base, cross)| (1.0 - weight) * base + weight * cross)
        .collect()
}

/// Zeros where all values are equal: such scores say nothing.
fn standardized(values: &[f32]) -> Vec<f32> {
    let num = values.len().max(1) as f32; // lists are short
    let mean = values.iter().sum::<f32>() / num;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f32>()
        / num;
    let deviation = variance.sqrt();
    let is_flat = deviation <= f32::EPSILON * mean.abs().max(1.0);
    values
        .iter()
        .map(|value| {
            if is_flat {
                0.0
            } else {
                (value - mean) / deviation
            }
        })
        .collect()
}

/// Indices by score, best first; equal ones keep their order.
fn order_by(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
    order
}

/// A list that was shown for an event, with both scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredList {
    /// Scores of the base, best first.
    pub base: Vec<f32>,
    /// Logits of the CrossEncoder.
    pub cross: Vec<f32>,
    /// Where in the list the taken item stands, if it does.
    pub taken: Option<usize>,
}

impl ScoredList {
    /// NDCG@10 of the list reranked with `weight`.
    #[must_use]
    pub fn ndcg(&self, weight: f32) -> f64 {
        let order = order_by(&fuse(&self.base, &self.cross, weight));
        let position = self
            .taken
            .and_then(|taken| order.iter().position(|&idx| idx == taken));
        ndcg_at_k(position, SHOWN_LEN)
    }
}

/// The weight with the highest mean NDCG@10, the lowest of equal ones.
#[must_use]
pub fn choose_weight(lists: &[ScoredList]) -> f32 {
    let mut best = (0.0, f64::NEG_INFINITY);
    for weight in WEIGHTS {
        let sum: f64 = lists.iter().map(|list| list.ndcg(weight)).sum();
        if sum > best.1 + 1e-12 {
            best = (weight, sum);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn list(cross: [f32; 3]) -> ScoredList {
        ScoredList {
            base: vec![30.0, 20.0, 10.0],
            cross: cross.to_vec(),
            taken: Some(2),
        }
    }

    #[test]
    fn the_weight_goes_to_the_score_that_finds_the_item() {
        let knows = list([-1.0, 0.0, 1.0]);
        assert_eq!(knows.ndcg(0.0), 0.5, "third of the base");
        assert_eq!(knows.ndcg(1.0), 1.0);
        assert!(choose_weight(&[knows]) > 0.5);
        let misleads = list([1.0, 0.0, -1.0]);
        assert_eq!(choose_weight(&[misleads]), 0.0);
        let says_nothing = list([4.0; 3]);
        assert_eq!(choose_weight(&[says_nothing]), 0.0);
        assert_eq!(choose_weight(&[]), 0.0);
        let absent = ScoredList {
            taken: None,
            ..list([-1.0, 0.0, 1.0])
        };
        assert_eq!(absent.ndcg(1.0), 0.0);
    }

    #[test]
    fn what_is_behind_the_rescored_part_stays_there() {
        let scorer = CrossScorer::small(16, 1, &Device::flex()).expect("in bounds");
        let listed = |text, score| Listed { text, score };
        let list = [
            listed("red mug", 4.0),
            listed("", 3.0),
            listed("blue bag", 2.0),
            listed("white clock", 1.0),
        ];
        let kept = rerank(&scorer, "red bag", &list, 3, 0.0).expect("finite");
        assert_eq!(kept, vec![0, 1, 2, 3]);
        let mut by_cross = rerank(&scorer, "red bag", &list, 3, 1.0).expect("finite");
        assert_eq!(by_cross[3], 3);
        by_cross.sort_unstable();
        assert_eq!(by_cross, vec![0, 1, 2, 3]);
        let nothing = rerank(&scorer, "red bag", &[], 20, 0.5);
        assert_eq!(nothing.expect("nothing to do"), Vec::<usize>::new());
        assert!(rerank(&scorer, "red bag", &list, 3, 1.5).is_err());
    }
}
