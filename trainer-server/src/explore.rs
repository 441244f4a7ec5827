//! Explore: which items the model should be shown to learn about, with the reason in numbers.
//!
//! Per available item, for the users that were active lately (for an empty history where there are none):
//!
//! ```text
//! share        mean over users of softmax(scores)_i            what the model believes is wanted
//! num_events   decayed count n_i at the longest half-life      what it has seen
//! uncertainty  √( ln(1 + T)/(1 + n_i) · min(1/4, share·(1 − share)) ),  T = Σ n
//! upper        share + uncertainty
//! ```
//!
//! That is the bound of UCB1-Tuned (Auer, Cesa-Bianchi & Fischer 2002, "Finite-time Analysis of the Multiarmed
//! Bandit Problem", section 4) with the variance of a choice that has this share, and one more event on either
//! side so that an unseen item is finite. The list is ordered by `uncertainty`: first what is believed to be wanted
//! (a new item by its text) and has hardly been tried. Not here: showing it, which is the page's or the operator's.

use schemars::JsonSchema;
use serde::Serialize;
use shared_model::codec::state::{COUNTS_TENSOR, CodeState};
use shared_model::ids::ItemId;
use shared_model::model::prior;
use shared_model::model::scorer::{Query, ScoreError, Scorer};
use shared_model::model::sequence::Sequence;

use crate::coverage::Candidate;

/// Users whose scores are averaged.
pub const NUM_USERS: usize = 64;

/// One item and why it is worth showing.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Uncertain {
    /// The item.
    pub item_id: ItemId,
    /// Its share of what is wanted, as predicted.
    pub share: f64,
    /// Decayed count of its events.
    pub num_events: f64,
    /// How far the share may be off.
    pub uncertainty: f64,
    /// `share + uncertainty`.
    pub upper: f64,
}

/// The `k` most uncertain of the available items. `state` holds the codes that `scorer` was built from.
///
/// # Errors
/// The device failed.
pub async fn most_uncertain(
    scorer: &Scorer,
    state: &CodeState,
    sequences: &[Sequence],
    now_millis: i64,
    k: usize,
) -> Result<Vec<Uncertain>, ScoreError> {
    let nobody = [Sequence {
        tokens: Vec::new(),
        now_millis,
    }];
    let sequences = if sequences.is_empty() {
        &nobody[..]
    } else {
        sequences
    };
    let query = |(sequence_idx, sequence): (usize, &Sequence)| Query {
        sequence_idx,
        num_known: sequence.tokens.len(),
        now_millis,
    };
    let queries: Vec<Query> = sequences.iter().enumerate().map(query).collect();
    let scores = scorer.score(sequences, &queries).await?;
    let shares = mean_shares(&scores, state);
    let counts = counts(state, now_millis);
    let log_total = counts.iter().sum::<f64>().ln_1p();
    let rows = state.items.iter().zip(shares).zip(counts);
    let mut uncertain: Vec<Uncertain> = rows
        .filter(|((item, _), _)| item.available)
        .map(|((item, share), num_events)| {
            let variance = (share * (1.0 - share)).min(0.25);
            let uncertainty = (log_total / (1.0 + num_events) * variance).sqrt();
            Uncertain {
                item_id: item.item_id.clone(),
                share,
                num_events,
                uncertainty,
                upper: share + uncertainty,
            }
        })
        .collect();
    // Stable, so that ties stay in the order of the catalogue.
    uncertain.sort_by(|a, b| b.uncertainty.total_cmp(&a.uncertainty));
    uncertain.truncate(k);
    Ok(uncertain)
}

/// Mean over the rows of `scores`, `[num_users, num_items]`, of the softmax over the available items.
fn mean_shares(scores: &[f32], state: &CodeState) -> Vec<f64> {
    let num_items = state.items.len();
    let mut shares = vec![0.0; num_items];
    if num_items == 0 {
        return shares;
    }
    let num_users = (scores.len() / num_items) as f64;
    for row in scores.chunks_exact(num_items) {
        let available = || {
            row.iter()
                .zip(&state.items)
                .filter(|(_, item)| item.available)
        };
        let max = available().fold(f32::MIN, |max, (score, _)| max.max(*score));
        let weight = |score: f32| f64::from(score - max).exp();
        let sum: f64 = available().map(|(score, _)| weight(*score)).sum();
        for ((share, score), item) in shares.iter_mut().zip(row).zip(&state.items) {
            if item.available {
                *share += weight(*score) / sum / num_users;
            }
        }
    }
    shares
}

/// The available items with their decayed counts.
#[must_use]
pub fn candidates(state: &CodeState, now_millis: i64) -> Vec<Candidate> {
    let rows = state.items.iter().zip(counts(state, now_millis));
    rows.filter(|(item, _)| item.available)
        .map(|(item, num_events)| Candidate {
            item_id: item.item_id.clone(),
            num_events,
        })
        .collect()
}

/// Decayed counts at the longest half-life.
fn counts(state: &CodeState, now_millis: i64) -> Vec<f64> {
    let (Some(table), Some(half_life)) = (
        state.tensor(COUNTS_TENSOR),
        state.spec.half_lives_secs.last(),
    ) else {
        return vec![0.0; state.items.len()]; // no spec is without half-lives
    };
    let age = prior::age_in_half_lives(now_millis, state.landmark_millis, *half_life);
    let rows = table.codes.chunks_exact(table.num_cols);
    let newest = rows.map(|row| row.last().copied().unwrap_or(prior::NEVER_CODE));
    newest
        .map(|code| (f64::from(prior::log2_sum_from_code(code)) - age).exp2())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use shared_model::codec::state::ItemEntry;
    use shared_model::model::scorer::Padding;
    use shared_model::spec::ModelSpec;

    /// Four items whose scores are their biases, in sixteenths, with `2^(count/32)` events at the landmark.
    fn state(items: [(i16, i16, bool); 4]) -> CodeState {
        let spec = ModelSpec {
            half_lives_secs: vec![60],
            ..ModelSpec::default()
        };
        let mut state = CodeState::empty(spec);
        for (idx, (bias, count, available)) in items.into_iter().enumerate() {
            let item_id = ItemId::new(format!("i{idx}")).expect("short");
            state.append_items([ItemEntry { item_id, available }]);
            let table = state.tensor_mut("item.bias").expect("in every spec");
            table.exponents[idx] = -4;
            table.row_mut(idx)[0] = bias;
            let table = state.tensor_mut(COUNTS_TENSOR).expect("in every spec");
            table.row_mut(idx)[0] = count;
        }
        state
    }

    fn uncertain(state: &CodeState, now_millis: i64) -> Vec<Uncertain> {
        let scorer = Scorer::new(state, &Device::flex(), Padding::Longest);
        pollster::block_on(most_uncertain(&scorer, state, &[], now_millis, 3)).expect("finite")
    }

    #[test]
    fn what_is_wanted_and_hardly_tried_comes_first_with_its_numbers() {
        // 1 + 7 events on what scores alike, none on item 2, and item 3 is gone.
        let state = state([
            (0, 0, true),
            (0, 32 * 2, true),
            (0, prior::NEVER_CODE, true),
            (90, 0, false),
        ]);
        let rows = uncertain(&state, 0);
        let ids: Vec<&str> = rows.iter().map(|row| row.item_id.as_str()).collect();
        assert_eq!(ids, ["i2", "i0", "i1"]);
        // T = 1 + 4 + 0 + 1, whose last is not listed but was seen.
        let expected = (7.0_f64.ln() / 1.0 * (2.0 / 9.0)).sqrt();
        assert!((rows[0].uncertainty - expected).abs() < 1e-9, "{rows:?}");
        assert!((rows[0].share - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(rows[2].num_events, 4.0);
        assert_eq!(rows[1].upper, rows[1].share + rows[1].uncertainty);
    }

    #[test]
    fn counts_fade_so_that_what_was_known_becomes_uncertain_again() {
        let items = [(16, 64, true), (0, 0, true), (0, 0, true), (0, 0, true)];
        let (at_once, later) = (
            uncertain(&state(items), 0),
            uncertain(&state(items), 600_000),
        );
        let of_first = |rows: &[Uncertain]| {
            let row = rows.iter().find(|row| row.item_id.as_str() == "i0");
            row.map_or(0.0, |row| row.num_events)
        };
        assert_eq!(
            of_first(&uncertain(
                &state([
                    (16, 64, true),
                    (-90, 0, true),
                    (-90, 0, true),
                    (-90, 0, true)
                ]),
                0
            )),
            4.0
        );
        assert!(of_first(&later) < 0.01, "{later:?}");
        assert_ne!(at_once[0].item_id, later[0].item_id);
    }
}
