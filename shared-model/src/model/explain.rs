//! Explanations: why an item has its score, for one history.
//!
//! The score of the Ranker is a sum, so its parts are exact, with `n = |P·t + F·x + e|`:
//!
//! ```text
//! score = τ·u·P·t/n + τ·u·F·x/n + τ·u·e/n + prior + w·gain + b
//!         text        features    id_row    prior  neighbours bias
//! ```
//!
//! The user vector `u` is no sum over events: attention mixes them. So an event's effect is measured by
//! leaving it out and scoring again (erasure, Li, Monroe & Jurafsky 2016, arXiv:1612.08220):
//!
//! ```text
//! effect_j = score(history) − score(history without event j)
//! ```
//!
//! What moves up into a full window when an event is left out counts too: the effect is what a page would see
//! that forgets this event. Effects do not add up to the score, since events stand for one another.
//! The effect of the text is measured in the same way on the ranked item alone, `v = norm(F·x + e)`.
//!
//! Input: a scorer, the codes it was built from, and the tokens of a history. Not here: ids (`edge::engine`)
//! and how faithful it is (`docs/explanations.md`).

use serde::{Deserialize, Serialize};

use super::prior;
use super::scorer::{Query, ScoreError, Scorer};
use super::sequence::{Sequence, Token};
use crate::codec::state::{CodeState, CodeTensor};

/// Most attention scores per head in one batch: 51 histories of 50 events are 132,651, so they go in one.
const ATTENTION_SCORES_MAX: usize = 1 << 22;
/// As in the ranker's norm of item vectors.
const NORM_EPSILON: f32 = 1e-12;

/// The parts of a score; they add up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ScoreParts {
    /// How well the item's text goes with the history.
    pub text: f32,
    /// The same of the operator's features.
    pub features: f32,
    /// The same of what was learned about this very item beyond text and features.
    pub id_row: f32,
    /// How much the item was wanted lately, by everybody.
    pub prior: f32,
    /// How often it was had together with items of the history.
    pub neighbours: f32,
    /// What was learned about it whatever the history.
    pub bias: f32,
}

impl ScoreParts {
    /// The score.
    #[must_use]
    pub fn sum(&self) -> f32 {
        self.text + self.features + self.id_row + self.prior + self.neighbours + self.bias
    }
}

/// Means over all items of the version, for the same history: what a part has to be held against.
///
/// Only differences between items rank, so a prior of 3 says much where the mean is 1, and nothing where it is 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AverageParts {
    /// Of `text + features + id_row`.
    pub taste: f32,
    /// Of `prior`.
    pub prior: f32,
    /// Of `neighbours`.
    pub neighbours: f32,
    /// Of `bias`.
    pub bias: f32,
}

/// What an event did to the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenEffect {
    /// Position among the tokens asked about.
    pub token_idx: usize,
    /// `taste + neighbours`: the score with the event minus the score without it.
    pub effect: f32,
    /// What of it went through the user vector.
    pub taste: f32,
    /// What of it went through the table of neighbours.
    pub neighbours: f32,
}

/// Why one item has its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// `parts.sum()`.
    pub score: f32,
    /// What it is made of.
    pub parts: ScoreParts,
    /// What the average item has of them.
    pub average: AverageParts,
    /// The score minus the score of the same item without its text.
    pub text_effect: f32,
    /// Largest change first, whether up or down; the newer first where equal.
    pub effects: Vec<TokenEffect>,
}

/// One item to explain.
#[derive(Debug, Clone, Copy)]
pub struct ExplainQuery<'a> {
    /// Known events, oldest first. Only the last `history_len` are read, and one more that may move up.
    pub tokens: &'a [Token],
    /// Row of the item.
    pub item_idx: u32,
    /// The moment of ranking, milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
}

/// Explains one score. `state` holds the codes that `scorer` was built from, and `query.item_idx` is one of its rows.
///
/// # Errors
/// The device failed or produced a non-finite number.
pub async fn explain(
    scorer: &Scorer,
    state: &CodeState,
    query: &ExplainQuery<'_>,
) -> Result<Explanation, ScoreError> {
    let history_len = state.spec.history_len as usize;
    let first_read = query.tokens.len().saturating_sub(history_len);
    let sequences = with_and_without_each(query, history_len);
    let item = ItemParts::read(scorer, state, query.item_idx).await?;
    let taste_weight = scorer.taste_weight();
    let users = user_vectors(scorer, &sequences, history_len).await?;
    let neighbour_weight = row(state, "neighbour.weight", 0)
        .first()
        .map_or(0.0, |w| *w);
    let gains = scorer.neighbour_gains(&sequences, &end_queries(&sequences));
    let scored: Vec<(f32, f32)> = users
        .chunks_exact(item.id_row.len())
        .zip(&gains)
        .map(|(user, gains)| {
            let gain = gain_of(gains, query.item_idx);
            let taste = taste_weight * dot(user, &item.vector);
            (taste, neighbour_weight * gain)
        })
        .collect();
    let (taste, neighbours) = scored[0];
    let full = &users[..item.id_row.len()];
    let parts = ScoreParts {
        text: taste_weight * dot(full, &item.text) / item.length,
        features: taste_weight * dot(full, &item.features) / item.length,
        id_row: taste_weight * dot(full, &item.id_row) / item.length,
        prior: prior_of(state, query),
        neighbours,
        bias: row(state, "item.bias", query.item_idx)[0],
    };
    let without = scored[1..].iter().enumerate();
    let mut effects: Vec<TokenEffect> = without
        .map(|(read_idx, (taste_without, neighbours_without))| {
            let (taste, neighbours) = (taste - taste_without, neighbours - neighbours_without);
            TokenEffect {
                token_idx: first_read + read_idx,
                effect: taste + neighbours,
                taste,
                neighbours,
            }
        })
        .collect();
    effects.sort_unstable_by(|a, b| {
        let by_size = b.effect.abs().total_cmp(&a.effect.abs());
        by_size.then(b.token_idx.cmp(&a.token_idx))
    });
    let explanation = Explanation {
        score: parts.sum(),
        parts,
        average: AverageParts {
            neighbours: neighbour_weight * gains[0].iter().map(|(_, gain)| gain).sum::<f32>()
                / scorer.num_items() as f32,
            ..average(scorer, state, full, query.now_millis).await?
        },
        text_effect: taste - taste_weight * dot(full, &item.vector_without_text),
        effects,
    };
    explanation.checked()
}

impl Explanation {
    fn checked(self) -> Result<Self, ScoreError> {
        let effects = self.effects.iter().map(|effect| effect.effect);
        let mut numbers = [self.score, self.text_effect].into_iter().chain(effects);
        match numbers.position(|number| !number.is_finite()) {
            Some(score_idx) => Err(ScoreError::NotFinite { score_idx }),
            None => Ok(self),
        }
    }
}

/// The item's vector and the summands that it is the normalized sum of, each `[embedding_dim]`.
struct ItemParts {
    text: Vec<f32>,
    features: Vec<f32>,
    id_row: Vec<f32>,
    vector: Vec<f32>,
    vector_without_text: Vec<f32>,
    length: f32,
}

impl ItemParts {
    async fn read(scorer: &Scorer, state: &CodeState, item_idx: u32) -> Result<Self, ScoreError> {
        let coded = |name| Some(row(state, name, item_idx)).filter(|row| !row.is_empty());
        let (text, features) = (coded("item.text"), coded("item.features"));
        let id_row = row(state, "item.id_rows", item_idx);
        let zeros = || vec![0.0; id_row.len()];
        let text = scorer.content_of(text.as_deref(), None).await?;
        let text = text.unwrap_or_else(zeros);
        let features = scorer.content_of(None, features.as_deref()).await?;
        let features = features.unwrap_or_else(zeros);
        let rest: Vec<f32> = features.iter().zip(&id_row).map(|(x, e)| x + e).collect();
        let whole: Vec<f32> = rest.iter().zip(&text).map(|(rest, t)| rest + t).collect();
        let length = length(&whole);
        let scaled = |sum: &[f32], length: f32| sum.iter().map(|x| x / length).collect();
        Ok(Self {
            vector: scaled(&whole, length),
            vector_without_text: scaled(&rest, self::length(&rest)),
            text,
            features,
            id_row,
            length,
        })
    }
}

/// The history as it is, and then without each of the events that are read, oldest first.
fn with_and_without_each(query: &ExplainQuery<'_>, history_len: usize) -> Vec<Sequence> {
    let num_tokens = query.tokens.len();
    let first_read = num_tokens.saturating_sub(history_len);
    let sequence = |tokens: Vec<Token>| {
        let first = tokens.len().saturating_sub(history_len);
        Sequence {
            tokens: tokens[first..].to_vec(),
            now_millis: query.now_millis,
        }
    };
    // One more than is read: it moves up when another is left out.
    let kept = &query.tokens[first_read.saturating_sub(1)..];
    let num_older = first_read.min(1);
    let mut sequences = vec![sequence(kept.to_vec())];
    for left_out in num_older..kept.len() {
        let mut tokens = kept.to_vec();
        tokens.remove(left_out);
        sequences.push(sequence(tokens));
    }
    sequences
}

/// User vectors at the end of each sequence, `[sequences.len(), embedding_dim]`: in one batch where memory allows.
async fn user_vectors(
    scorer: &Scorer,
    sequences: &[Sequence],
    history_len: usize,
) -> Result<Vec<f32>, ScoreError> {
    let num_positions = history_len + 1;
    let mut batch_len = (ATTENTION_SCORES_MAX / (num_positions * num_positions)).max(1);
    let is_fixed = scorer.has_fixed_shapes();
    // A GPU keeps its kernels and buffers where the shape is always the same.
    batch_len = batch_len.min(if is_fixed {
        num_positions
    } else {
        sequences.len()
    });
    let mut users = Vec::new();
    for batch in sequences.chunks(batch_len) {
        let mut batch = batch.to_vec();
        let num_wanted = batch.len();
        if is_fixed {
            batch.resize(batch_len, batch[0].clone());
        }
        let queries = end_queries(&batch);
        let values = scorer.user_rows(&batch, &queries).await?;
        let dim = values.len() / batch.len();
        users.extend_from_slice(&values[..num_wanted * dim]);
    }
    Ok(users)
}

fn end_queries(sequences: &[Sequence]) -> Vec<Query> {
    let query = |(sequence_idx, sequence): (usize, &Sequence)| Query {
        sequence_idx,
        num_known: sequence.tokens.len(),
        now_millis: sequence.now_millis,
    };
    sequences.iter().enumerate().map(query).collect()
}

/// What the item gains by neighbours; `gains` are ascending by item.
fn gain_of(gains: &[(u32, f32)], item_idx: u32) -> f32 {
    let found = gains.binary_search_by_key(&item_idx, |(gaining, _)| *gaining);
    found.map_or(0.0, |position| gains[position].1)
}

/// Means over all items, but for the neighbours. There is at least one item: the one that is explained.
async fn average(
    scorer: &Scorer,
    state: &CodeState,
    user: &[f32],
    now_millis: i64,
) -> Result<AverageParts, ScoreError> {
    let num_items = scorer.num_items() as f32;
    let tastes = scorer.products_of(user).await?;
    let features = scorer.prior_features(now_millis);
    let priors = prior::scores(&features, &row(state, "prior.weights", 0));
    let bias = state.tensor("item.bias").map(CodeTensor::dequantize);
    Ok(AverageParts {
        taste: scorer.taste_weight() * tastes.iter().sum::<f32>() / num_items,
        prior: priors.iter().sum::<f32>() / num_items,
        neighbours: 0.0,
        bias: bias.unwrap_or_default().iter().sum::<f32>() / num_items,
    })
}

fn prior_of(state: &CodeState, query: &ExplainQuery<'_>) -> f32 {
    let counts = state.tensor("item.counts").expect("in every spec");
    let codes = counts.row(query.item_idx as usize).iter();
    let log2_sums: Vec<f32> = codes.map(|code| prior::log2_sum_from_code(*code)).collect();
    let features = prior::features(
        &log2_sums,
        &state.spec.half_lives_secs,
        state.landmark_millis,
        query.now_millis,
    );
    prior::scores(&features, &row(state, "prior.weights", 0))[0]
}

/// A row as numbers; empty where the spec has no such tensor or it has no columns.
fn row(state: &CodeState, name: &str, row_idx: u32) -> Vec<f32> {
    match state.tensor(name) {
        Some(tensor) if tensor.num_cols > 0 => tensor.dequantize_row(row_idx as usize),
        Some(_) | None => Vec::new(),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(vector: &[f32]) -> f32 {
    (dot(vector, vector) + NORM_EPSILON).sqrt()
}
