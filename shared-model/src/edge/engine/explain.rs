//! Explanations by item id: what the page and the server say about one ranked item.
//!
//! The measuring is `model::explain`; here ids become rows and effects get back to the events of the history.

use serde::{Deserialize, Serialize};

use super::{EdgeEngine, EngineError, ReadyVersion};
use crate::codec::state::CodeState;
use crate::event::{EventKind, HistoryEvent};
use crate::ids::{ItemId, Version};
use crate::model::explain::{AverageParts, ExplainQuery, ScoreParts, explain};

/// One explanation wanted.
#[derive(Debug, Clone, Copy)]
pub struct ExplainRequest<'a> {
    /// Events of the user, oldest first.
    pub history: &'a [HistoryEvent],
    /// The item whose score is explained.
    pub item_id: &'a ItemId,
    /// How many events are named at most.
    pub k: usize,
    /// The moment of ranking, milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
}

/// An event of the history and what it did to the score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventEffect {
    /// The item of the event.
    pub item_id: ItemId,
    /// What was done.
    pub kind: EventKind,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
    /// The score minus the score that the item would have without this event: `taste + neighbours`.
    pub effect: f32,
    /// What of it went through the user vector.
    pub taste: f32,
    /// What of it went through the table of neighbours.
    pub neighbours: f32,
}

/// Why an item has its score, by one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ItemExplanation {
    /// The version that scored.
    pub model_version: Version,
    /// The item.
    pub item_id: ItemId,
    /// Its score, as ranking gives it.
    pub score: f32,
    /// What adds up to the score.
    pub parts: ScoreParts,
    /// What the average item of the version has of them.
    pub average: AverageParts,
    /// The score minus the score of the same item without its text.
    pub text_effect: f32,
    /// Known events that the model reads, largest effect first, whether it raised or lowered the score.
    pub events: Vec<EventEffect>,
}

impl ReadyVersion {
    /// Explains the score of one item; the version is passed on as it is.
    ///
    /// # Errors
    /// The item is not of this version, or the device failed.
    pub async fn explain(
        &self,
        state: &CodeState,
        model_version: Version,
        request: &ExplainRequest<'_>,
    ) -> Result<ItemExplanation, EngineError> {
        let Some(item_idx) = self.item_idx(request.item_id) else {
            return Err(EngineError::UnknownItem {
                item_id: request.item_id.clone(),
            });
        };
        // One more than the model reads: it moves up when another is left out.
        let num_tokens_max = state.spec.history_len as usize + 1;
        let known = self.known_tokens(request.history, num_tokens_max);
        let tokens: Vec<_> = known.iter().map(|(_, token)| *token).collect();
        let query = ExplainQuery {
            tokens: &tokens,
            item_idx,
            now_millis: request.now_millis,
        };
        let explanation = explain(&self.scorer, state, &query).await?;
        let effects = explanation.effects.iter().take(request.k);
        let events = effects.map(|effect| {
            let (history_idx, _) = known[effect.token_idx];
            let event = &request.history[history_idx];
            EventEffect {
                item_id: event.item_id.clone(),
                kind: event.kind,
                occurred_at: event.occurred_at,
                effect: effect.effect,
                taste: effect.taste,
                neighbours: effect.neighbours,
            }
        });
        Ok(ItemExplanation {
            model_version,
            item_id: request.item_id.clone(),
            score: explanation.score,
            parts: explanation.parts,
            average: explanation.average,
            text_effect: explanation.text_effect,
            events: events.collect(),
        })
    }
}

impl EdgeEngine {
    /// Explains a score by the live version.
    ///
    /// # Errors
    /// Nothing is live yet, the item is unknown to it, or the device failed.
    pub async fn explain(
        &mut self,
        request: &ExplainRequest<'_>,
    ) -> Result<ItemExplanation, EngineError> {
        self.revive();
        let (Some((_, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let version = live.manifest.version;
        ready.explain(&live.state, version, request).await
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
