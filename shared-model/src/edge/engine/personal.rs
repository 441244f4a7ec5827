//! The personal model: what a visitor's own history adds to the scores of a version, learned on the visitor's device.
//!
//! A version knows what people like this visitor want; whether this visitor comes back to what they had, and when, it
//! hardly can. Items of the history get points `w · f`, all others none, so that the order among new items stays the
//! version's. Features `f` of an item that was had, at a moment:
//!
//! ```text
//! 1      ln(1 + times)      had within the hour      ln(1 + Σ 2^(−age / 30 days))
//! ```
//!
//! Points count to [`PERSONAL_POINTS_MAX`] either way. A dislike takes an item out of what was had, and neither a dislike
//! nor a skip is taken for coming back.
//!
//! The weights `w` are those of a softmax over all items, `p ∝ exp(score + w · f)`, and begin at 0, where it is that of
//! the version. The last events are gone through in order: each is first foretold, which tells how many nats the weights
//! have gained over the version (progressive validation, Blum, Kalai & Langford 1999), then learned by an online Newton
//! step (Hazan, Agarwal & Kale 2007) over the covariance of the features; [`PRIOR_PRECISION`] holds them to 0.
//! Where nothing was gained they are not used.
//!
//! Whatever changes, the version or the history, all of it is learned anew from the history: there is nothing else to
//! keep, to rebase or to send. Not here: where histories are kept, which is the page's work.

use serde::Serialize;

use super::{EdgeEngine, EngineError, ReadyVersion};
use crate::codec::state::CodeState;
use crate::event::{EventKind, HistoryEvent};
use crate::ids::{BlobId, Version};
use crate::model::scorer::{Query, ScoreError};
use crate::model::sequence::{Sequence, Token};

/// Events of a history that are looked at: as many as a page keeps.
pub const PERSONAL_EVENTS_MAX: usize = 200;
/// Most points of one item, either way: its odds against all others some 22,000 times as high, and a shop's rules can
/// still outweigh them. A step after one event far from what the version foretold goes beyond that.
const PERSONAL_POINTS_MAX: f64 = 10.0;
/// Events that are foretold at once: each takes a score of every item in memory.
const QUERIES_MAX: usize = 16;
const NUM_FEATURES: usize = 4;
/// One over the variance that each weight is believed to have among visitors.
const PRIOR_PRECISION: f64 = 0.3;
/// Nats by which the version must be beaten.
const GAIN_MIN: f64 = 0.0;
const HOUR_MILLIS: i64 = 3_600_000;
const HALF_LIFE_MILLIS: f64 = 30.0 * 24.0 * 3_600_000.0;

type Features = [f64; NUM_FEATURES];

/// An item of a history at a moment.
#[derive(Debug)]
struct Had {
    item_idx: u32,
    features: Features,
}

/// What was learned of one visitor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Personal {
    weights: Features,
    precision: [Features; NUM_FEATURES],
    gain: f64,
    events_learned: usize,
}

/// What the personal model has come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PersonalStatus {
    /// Whether its points count.
    pub is_on: bool,
    /// Events that it foretold and learned from.
    pub events_learned: usize,
    /// Nats by which it foretold them better than the version.
    pub gain: f64,
}

/// A personal model with what it was learned from.
#[derive(Debug)]
pub(super) struct Learned {
    version: Version,
    /// Tells whether the history is the same, and keeps nothing of it once it is cleared.
    history: BlobId,
    personal: Personal,
}

impl Default for Personal {
    fn default() -> Self {
        let mut precision = [[0.0; NUM_FEATURES]; NUM_FEATURES];
        for (row_idx, row) in precision.iter_mut().enumerate() {
            row[row_idx] = PRIOR_PRECISION;
        }
        Self {
            weights: [0.0; NUM_FEATURES],
            precision,
            gain: 0.0,
            events_learned: 0,
        }
    }
}

impl Personal {
    /// What it has come to.
    #[must_use]
    pub fn status(&self) -> PersonalStatus {
        PersonalStatus {
            is_on: self.gain > GAIN_MIN,
            events_learned: self.events_learned,
            gain: self.gain,
        }
    }

    fn points_of(&self, features: &Features) -> f64 {
        let terms = self.weights.iter().zip(features);
        let points: f64 = terms.map(|(weight, feature)| weight * feature).sum();
        points.clamp(-PERSONAL_POINTS_MAX, PERSONAL_POINTS_MAX)
    }

    /// Foretells the item that was taken where the version gave `scores`, then learns from it.
    fn learn(&mut self, had: &[Had], scores: &[f32], taken: u32) {
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mass = |score: &f32| f64::from((score - highest).exp());
        let mass_of_version: f64 = scores.iter().map(mass).sum();
        // Only items that were had weigh otherwise than in the version.
        let mut total = mass_of_version;
        let (mut points_of_taken, mut gradient) = (0.0, [0.0; NUM_FEATURES]);
        let mut sums = [0.0; NUM_FEATURES];
        let mut products = [[0.0; NUM_FEATURES]; NUM_FEATURES];
        for Had { item_idx, features } in had {
            let points = self.points_of(features);
            let before = mass(&scores[*item_idx as usize]);
            let after = before * points.exp();
            total += after - before;
            for (a, sum) in sums.iter_mut().enumerate() {
                *sum += after * features[a];
                for (b, product) in products[a].iter_mut().enumerate() {
                    *product += after * features[a] * features[b];
                }
            }
            if *item_idx == taken {
                (points_of_taken, gradient) = (points, *features);
            }
        }
        self.gain += points_of_taken - (total / mass_of_version).ln();
        self.events_learned += 1;
        for (a, row) in self.precision.iter_mut().enumerate() {
            gradient[a] -= sums[a] / total;
            for (b, precision) in row.iter_mut().enumerate() {
                *precision += (products[a][b] - sums[a] * sums[b] / total) / total;
            }
        }
        let step = solved(self.precision, gradient);
        for (weight, step) in self.weights.iter_mut().zip(step) {
            *weight += step;
        }
    }
}

/// `A⁻¹b` by elimination without pivots: `A` is symmetric with eigenvalues from [`PRIOR_PRECISION`] on.
fn solved(mut a: [Features; NUM_FEATURES], mut b: Features) -> Features {
    for pivot in 0..NUM_FEATURES {
        for row in (0..NUM_FEATURES).filter(|row| *row != pivot) {
            let factor = a[row][pivot] / a[pivot][pivot];
            for column in pivot..NUM_FEATURES {
                a[row][column] -= factor * a[pivot][column];
            }
            b[row] -= factor * b[pivot];
        }
    }
    for (row, value) in b.iter_mut().enumerate() {
        *value /= a[row][row];
    }
    b
}

/// Whether someone who did this had the item, and would come back to it by doing so again.
fn is_taken(kind: EventKind) -> bool {
    match kind {
        EventKind::View
        | EventKind::Click
        | EventKind::AddToCart
        | EventKind::Purchase
        | EventKind::Like
        | EventKind::Rating
        | EventKind::Watch => true,
        EventKind::Impression | EventKind::Dislike | EventKind::Skip => false,
    }
}

/// The items that were had by some events, and not disliked since, with their features at a moment.
fn had(past: &[Token], now_millis: i64) -> Vec<Had> {
    let mut all: Vec<Had> = Vec::new();
    for token in past {
        if token.kind == EventKind::Dislike {
            all.retain(|had| had.item_idx != token.item_idx);
        }
        if !is_taken(token.kind) {
            continue;
        }
        let known = all.iter().position(|had| had.item_idx == token.item_idx);
        let idx = known.unwrap_or_else(|| {
            all.push(Had {
                item_idx: token.item_idx,
                features: [1.0, 0.0, 0.0, 0.0],
            });
            all.len() - 1
        });
        let age_millis = now_millis.saturating_sub(token.occurred_at).max(0);
        let features = &mut all[idx].features;
        features[1] += 1.0;
        features[2] = f64::from(u8::from(age_millis < HOUR_MILLIS)); // that of the last time
        features[3] += (-(age_millis as f64) / HALF_LIFE_MILLIS).exp2(); // milliseconds of centuries fit f64
    }
    for Had { features, .. } in &mut all {
        features[1] = features[1].ln_1p();
        features[3] = features[3].ln_1p();
    }
    all
}

impl ReadyVersion {
    /// Learns from a history what its visitor does otherwise than this version thinks; the same every time.
    ///
    /// Its last events are foretold, each from at least half as many before it as the model attends to, where there are
    /// so many; popularity is that of `now_millis` for all of them.
    ///
    /// # Errors
    /// See [`Scorer::score`](crate::model::scorer::Scorer::score).
    pub async fn personal(
        &self,
        state: &CodeState,
        history: &[HistoryEvent],
        now_millis: i64,
    ) -> Result<Personal, ScoreError> {
        let tokens = self.personal_tokens(history);
        let history_len = state.spec.history_len as usize;
        let num_at_once = QUERIES_MAX.min(history_len.div_ceil(2));
        let first = tokens.len().saturating_sub(history_len);
        let mut personal = Personal::default();
        for begin in (first..tokens.len()).step_by(num_at_once) {
            let end = tokens.len().min(begin + num_at_once);
            let window = &tokens[end.saturating_sub(history_len)..end];
            let scores = self.scores_before(window, end - begin, num_at_once, now_millis);
            let scores = scores.await?;
            let rows = scores.chunks_exact(state.items.len().max(1));
            for (token_idx, row) in (begin..end).zip(rows) {
                let taken = tokens[token_idx];
                if is_taken(taken.kind) {
                    let had = had(&tokens[..token_idx], taken.occurred_at);
                    personal.learn(&had, row, taken.item_idx);
                }
            }
        }
        Ok(personal)
    }

    /// Scores of all items before each of the last events of a window; for GPUs, always as many.
    async fn scores_before(
        &self,
        window: &[Token],
        num_events: usize,
        num_at_once: usize,
        now_millis: i64,
    ) -> Result<Vec<f32>, ScoreError> {
        let query = |num_known| Query {
            sequence_idx: 0,
            num_known,
            now_millis,
        };
        let mut queries: Vec<Query> = (window.len() - num_events..window.len())
            .map(query)
            .collect();
        if self.scorer.has_fixed_shapes() {
            queries.resize(num_at_once, query(0));
        }
        let sequence = Sequence {
            tokens: window.to_vec(),
            now_millis,
        };
        self.scorer.score(&[sequence], &queries).await
    }

    /// Points of the items of a history: item and points, none where the personal model is not used.
    #[must_use]
    pub fn personal_points(
        &self,
        personal: &Personal,
        history: &[HistoryEvent],
        now_millis: i64,
    ) -> Vec<(u32, f64)> {
        if !personal.status().is_on {
            return Vec::new();
        }
        let had = had(&self.personal_tokens(history), now_millis);
        let points = |had: &Had| (had.item_idx, personal.points_of(&had.features));
        had.iter().map(points).collect()
    }

    fn personal_tokens(&self, history: &[HistoryEvent]) -> Vec<Token> {
        let known = self.known_tokens(history, PERSONAL_EVENTS_MAX);
        known.into_iter().map(|(_, token)| token).collect()
    }
}

impl EdgeEngine {
    /// What the live version and a history teach; learned anew where one of them is another than last time.
    ///
    /// # Errors
    /// Nothing is live yet, or the device failed.
    pub async fn personal(
        &mut self,
        history: &[HistoryEvent],
        now_millis: i64,
    ) -> Result<Personal, EngineError> {
        self.revive();
        let (Some((version, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let events = serde_json::to_vec(history).expect("plain values always serialize");
        let hash = BlobId::of(&events);
        let is_same = |learned: &&Learned| learned.version == *version && learned.history == hash;
        if let Some(learned) = self.personal.as_ref().filter(is_same) {
            return Ok(learned.personal);
        }
        let personal = ready.personal(&live.state, history, now_millis).await?;
        self.personal = Some(Learned {
            version: *version,
            history: hash,
            personal,
        });
        Ok(personal)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
