//! Items by a text: what a visitor types, or an item that no version holds yet.
//!
//! A query is embedded where it was typed (`text`), and compared with the text of every item as this version carries it,
//! by the cosine that the encoder was trained for:
//!
//! ```text
//! similarity_i = cos(t, t_i)                                              −1 to 1, 0 for an item without a text
//! score_i      = similarity_i                                             taste = 0
//! score_i      = (1 − p)·z(similarity_i) + p·z(ranking score_i)           p = taste > 0, over the POOL or k most similar
//! ```
//! `z` takes the pool's mean away and divides by its deviation, so that two scales become one (CombSUM over z-scores,
//! Fox & Shaw 1994, Renda & Straccia 2003). Nothing outside the pool is found, however well it would be liked.
//!
//! An item that no version holds is scored as a new item is: by its text alone, wanted by nobody yet. Its score is on the
//! scale of a ranking.

use serde::Serialize;

use super::{EdgeEngine, EngineError, K_MAX, RankRequest, ReadyVersion, top_k};
use crate::codec::state::{CodeState, CodeTensor};
use crate::event::HistoryEvent;
use crate::ids::{ItemId, Version};
use crate::model::scorer::Query;

/// Most texts that one call may score.
pub const NEW_ITEMS_MAX: usize = 1000;

/// Items among which taste has a say.
const POOL: usize = 200;

/// Items wanted by a text.
#[derive(Debug, Clone, Copy)]
pub struct SearchRequest<'a> {
    /// What is looked for, embedded: `[text_dim]`.
    pub text: &'a [f32],
    /// Say of the visitor's taste, 0 to 1.
    pub taste: f64,
    /// For whom, of what, how many.
    pub rank: RankRequest<'a>,
}

/// New items to be scored by their texts.
#[derive(Debug, Clone, Copy)]
pub struct NewItemsRequest<'a> {
    /// How many there are.
    pub num_items: usize,
    /// Embedded texts, `[num_items, text_dim]`, row-major.
    pub texts: &'a [f32],
    /// Events of the user, oldest first.
    pub history: &'a [HistoryEvent],
    /// The moment of ranking, milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
}

/// One item found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundItem {
    /// The item.
    pub item_id: ItemId,
    /// What it is ordered by.
    pub score: f32,
    /// Cosine of its text with what is looked for.
    pub similarity: f32,
}

/// What was found by one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Found {
    /// The version whose texts were compared.
    pub model_version: Version,
    /// Best first.
    pub items: Vec<FoundItem>,
}

impl ReadyVersion {
    /// Items whose texts are like a text, best first.
    ///
    /// # Errors
    /// The version has no texts, they have another width, or the device failed.
    pub async fn search(
        &self,
        state: &CodeState,
        request: &SearchRequest<'_>,
    ) -> Result<Vec<FoundItem>, EngineError> {
        let rows = texts_of(state, request.text.len())?;
        let similarities = similarities(rows, request.text);
        let rank = &request.rank;
        let k = rank.options.k.min(K_MAX);
        let pool_len = if request.taste > 0.0 { k.max(POOL) } else { k };
        let mut pool = top_k(self.eligible(state, rank), &similarities, pool_len);
        let mut scores = similarities.clone();
        if request.taste > 0.0 {
            let wanted = self.score_all(state, rank.history, rank.now_millis).await?;
            for (item_idx, score) in mixed(&pool, &similarities, &wanted, request.taste) {
                scores[item_idx as usize] = score;
            }
            pool = top_k(pool, &scores, k);
        }
        let found = |item_idx: u32| FoundItem {
            item_id: state.items[item_idx as usize].item_id.clone(),
            score: scores[item_idx as usize],
            similarity: similarities[item_idx as usize],
        };
        Ok(pool.into_iter().map(found).collect())
    }

    /// Scores of items that the version does not hold, on the scale of a ranking: `[num_items]`.
    ///
    /// # Errors
    /// The version has no texts, they have another width, there are too many, or the device failed.
    pub async fn score_new(
        &self,
        state: &CodeState,
        request: &NewItemsRequest<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let num_items = request.num_items;
        if num_items == 0 {
            return Ok(Vec::new());
        }
        if num_items > NEW_ITEMS_MAX {
            return Err(EngineError::TooLong {
                field: "items",
                actual: num_items,
                max: NEW_ITEMS_MAX,
            });
        }
        let expected = state.spec.text_dim as usize;
        texts_of(state, expected)?;
        if request.texts.len() != num_items * expected {
            let actual = request.texts.len() / num_items;
            return Err(EngineError::TextWidth { actual, expected });
        }
        let sequence = self.sequence(state, request.history, request.now_millis);
        let query = Query {
            sequence_idx: 0,
            num_known: sequence.tokens.len(),
            now_millis: request.now_millis,
        };
        let scored = self.scorer.score_new(sequence, query, request.texts).await;
        Ok(scored?)
    }
}

impl EdgeEngine {
    /// Items of the live version whose texts are like a text, best first.
    ///
    /// # Errors
    /// Nothing is live yet, it has no texts or of another width, or the device failed.
    pub async fn search(&mut self, request: &SearchRequest<'_>) -> Result<Found, EngineError> {
        self.revive();
        let (Some((_, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let request = SearchRequest {
            rank: request.rank.moderated(self.moderation.as_ref()),
            ..*request
        };
        Ok(Found {
            model_version: live.manifest.version,
            items: ready.search(&live.state, &request).await?,
        })
    }

    /// Scores of items that the live version does not hold, with its number.
    ///
    /// # Errors
    /// Nothing is live yet, it has no texts or of another width, there are too many, or the device failed.
    pub async fn score_new(
        &mut self,
        request: &NewItemsRequest<'_>,
    ) -> Result<(Version, Vec<f32>), EngineError> {
        self.revive();
        let (Some((_, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let scores = ready.score_new(&live.state, request).await?;
        Ok((live.manifest.version, scores))
    }
}

/// Texts of the items, `actual` wide.
fn texts_of(state: &CodeState, actual: usize) -> Result<&CodeTensor, EngineError> {
    let expected = state.spec.text_dim as usize;
    match state.tensor("item.text") {
        Some(texts) if expected > 0 && actual == expected => Ok(texts),
        _ => Err(EngineError::TextWidth { actual, expected }),
    }
}

/// Cosines of a text with every row. A row's scale cancels out, so codes are enough.
fn similarities(texts: &CodeTensor, text: &[f32]) -> Vec<f32> {
    let length = text.iter().map(|value| value * value).sum::<f32>().sqrt();
    let cosine = |row: &[i16]| {
        let (mut product, mut square) = (0.0_f32, 0.0_f32);
        for (code, value) in row.iter().zip(text) {
            let code = f32::from(*code);
            product += code * value;
            square += code * code;
        }
        let lengths = length * square.sqrt();
        if lengths > 0.0 {
            product / lengths
        } else {
            0.0
        }
    };
    texts
        .codes
        .chunks_exact(texts.num_cols)
        .map(cosine)
        .collect()
}

/// Both on one scale, by item.
fn mixed<'a>(
    pool: &'a [u32],
    similarities: &'a [f32],
    wanted: &'a [f32],
    taste: f64,
) -> impl Iterator<Item = (u32, f32)> + 'a {
    let (similar, wished) = (standardized(pool, similarities), standardized(pool, wanted));
    let both = similar.into_iter().zip(wished);
    let scores = both.map(move |(similar, wished)| {
        ((1.0 - taste) * similar + taste * wished) as f32 // scores are f32
    });
    pool.iter().copied().zip(scores)
}

fn standardized(pool: &[u32], values: &[f32]) -> Vec<f64> {
    let pooled = || {
        pool.iter()
            .map(|item_idx| f64::from(values[*item_idx as usize]))
    };
    let num = pool.len().max(1) as f64; // at most K_MAX
    let mean = pooled().sum::<f64>() / num;
    let variance = pooled().map(|value| (value - mean).powi(2)).sum::<f64>() / num;
    let scale = if variance > 0.0 {
        variance.sqrt().recip()
    } else {
        0.0
    };
    pooled().map(|value| (value - mean) * scale).collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests;
