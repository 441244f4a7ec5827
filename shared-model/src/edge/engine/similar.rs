//! Items like other items, by the vectors of one version.
//!
//! The vector of an item is the one that the model reads histories with and scores against (`model::ranker`):
//! `v = norm(P·t + F·x + e)`, of its text, the operator's features, and what was learned of the item itself.
//! A new item is found by its text at once, and moves towards what it is wanted with as it is learned about.
//! These vectors have length 1 in training too, so their products are what was trained; cosines of vectors whose length
//! was free would mean little (Steck, Ekanadham & Kallus 2024, "Is Cosine-Similarity of Embeddings Really About
//! Similarity?").
//!
//! ```text
//! score_i = mean over the items q asked about of cos(v_i, v_q)          −1 to 1
//! ```
//!
//! Not in it: how much an item is wanted (prior, bias), and the table of items that were had together with one another,
//! which names what goes with an item and not what is like it.

use super::moderation::rules_of;
use super::{EdgeEngine, EngineError, K_MAX, RankOptions, RankRequest, RankedItem, Ranking};
use super::{ReadyVersion, top_k};
use crate::codec::state::CodeState;
use crate::event::HistoryEvent;
use crate::ids::ItemId;
use crate::manifest::ModerationRules;
use crate::model::scorer::{ScoreError, Scorer, all_finite};

/// Most items that one call may ask about.
pub const SIMILAR_TO_MAX: usize = 1000;

/// Items wanted that are like others.
#[derive(Debug, Clone, Copy)]
pub struct SimilarRequest<'a> {
    /// The items asked about, at most [`SIMILAR_TO_MAX`]; they are not among the answer, and unknown ones are passed over.
    pub item_ids: &'a [ItemId],
    /// What may be answered; everything available where `None`.
    pub candidates: Option<&'a [ItemId]>,
    /// Events of the user: left out where the options say so.
    pub history: &'a [HistoryEvent],
    /// How many, and which are left out.
    pub options: &'a RankOptions,
    /// What the operators say of it; as in [`RankRequest`].
    pub moderation: Option<&'a ModerationRules>,
}

impl ReadyVersion {
    /// The nearest items, nearest first.
    ///
    /// # Errors
    /// None of the items is known, too many are asked about, or the device failed.
    pub async fn similar(
        &self,
        state: &CodeState,
        request: &SimilarRequest<'_>,
    ) -> Result<Vec<RankedItem>, EngineError> {
        if request.item_ids.len() > SIMILAR_TO_MAX {
            return Err(EngineError::TooLong {
                field: "itemIds",
                actual: request.item_ids.len(),
                max: SIMILAR_TO_MAX,
            });
        }
        let known = request.item_ids.iter();
        let mut asked: Vec<u32> = known.filter_map(|item_id| self.item_idx(item_id)).collect();
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() {
            let Some(item_id) = request.item_ids.first().cloned() else {
                return Ok(Vec::new());
            };
            return Err(EngineError::UnknownItem { item_id });
        }
        let similarities = all_finite(self.scorer.mean_products(&asked).await?)?;
        let mut eligible = self.eligible(
            state,
            &RankRequest {
                history: request.history,
                candidates: request.candidates,
                options: request.options,
                now_millis: 0, // what may be ranked has nothing to do with the time
                moderation: request.moderation,
            },
        );
        eligible.retain(|item_idx| asked.binary_search(item_idx).is_err());
        let nearest = top_k(eligible, &similarities, request.options.k.min(K_MAX));
        let ranked = |item_idx: u32| RankedItem {
            item_id: state.items[item_idx as usize].item_id.clone(),
            score: similarities[item_idx as usize],
        };
        Ok(nearest.into_iter().map(ranked).collect())
    }
}

/// Vectors of some items as the version ranks with them, `[item_idxs.len(), embedding_dim]`.
///
/// # Errors
/// The device failed or produced a non-finite number.
pub(super) async fn vectors_of(scorer: &Scorer, item_idxs: &[u32]) -> Result<Vec<f32>, ScoreError> {
    all_finite(scorer.item_rows(item_idxs).await?)
}

impl EdgeEngine {
    /// The nearest items by the live version, nearest first; their scores are mean cosines.
    ///
    /// # Errors
    /// Nothing is live yet, none of the items is known to it, too many are asked about, or the device failed.
    pub async fn similar(&mut self, request: &SimilarRequest<'_>) -> Result<Ranking, EngineError> {
        self.revive();
        let (Some((_, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let request = SimilarRequest {
            moderation: rules_of(self.moderation.as_ref()),
            ..*request
        };
        Ok(Ranking {
            model_version: live.manifest.version,
            items: ready.similar(&live.state, &request).await?,
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
