//! Ranking otherwise than by the live version, for experiments: by a version that is kept, and by counts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{RankRequest, ReadyVersion};
use shared_model::ids::{ItemId, Version};
use shared_model::manifest::{ModerationRules, PinnedItem};

use super::Serveable;
use crate::experiment::held::HeldVersions;
use crate::explore;
use crate::http::{RecommendError, ScoredItem};
use crate::learner::LiveModel;
use crate::publish::Publisher;

/// Versions that are ready to rank at the same time beside the live one; each takes what the live one takes.
pub(crate) const MODELS_MAX: usize = 2;

/// Kept versions that were asked for last.
pub(super) struct KeptModels {
    publisher: Publisher,
    held: HeldVersions,
    /// The newest wish last.
    ready: Mutex<Vec<Arc<Serveable>>>,
}

impl KeptModels {
    pub(super) fn new(publisher: Publisher, held: HeldVersions) -> Self {
        let ready = Mutex::default();
        Self {
            publisher,
            held,
            ready,
        }
    }

    /// A version ready to rank on the host; the first time it is rebuilt, which others wait for rather than do as well.
    pub(super) fn model(&self, version: Version) -> Result<Arc<Serveable>, RecommendError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = ready.iter().position(|one| one.version == version) {
            let known = ready.remove(known);
            ready.push(Arc::clone(&known));
            return Ok(known);
        }
        let held = self.held.read(version);
        let held = held.map_err(|error| RecommendError::Failed(error.to_string()))?;
        let state = match held {
            Some(state) => state,
            None => {
                let kept = self.publisher.kept(version);
                let kept = kept.map_err(|error| RecommendError::Failed(error.to_string()))?;
                kept.ok_or(RecommendError::NotKept(version))?.1
            }
        };
        let model = LiveModel {
            ready: ReadyVersion::on_host(&state),
            state: Arc::new(state),
        };
        let built = Arc::new(Serveable { version, model });
        if ready.len() == MODELS_MAX {
            ready.remove(0);
        }
        ready.push(Arc::clone(&built));
        Ok(built)
    }
}

/// The available items by their decayed counts, most first; what a request or operators rule out is left out, and what
/// operators pin has its place. Their points, which are of scores, mean nothing among counts.
pub(super) fn most_popular(state: &CodeState, request: &RankRequest<'_>) -> Vec<ScoredItem> {
    let options = request.options;
    let none = ModerationRules::default();
    let rules = request.moderation.unwrap_or(&none);
    let seen = request.history.iter().filter(|_| options.exclude_seen);
    let seen: HashSet<&ItemId> = seen.map(|event| &event.item_id).collect();
    let blocked: HashSet<&ItemId> = rules.block.iter().collect();
    let wanted: Option<HashSet<&ItemId>> = request.candidates.map(|ids| ids.iter().collect());
    let mut items = explore::candidates(state, request.now_millis);
    items.retain(|item| {
        let is_wanted = wanted
            .as_ref()
            .is_none_or(|ids| ids.contains(&item.item_id));
        is_wanted && !seen.contains(&item.item_id) && !blocked.contains(&item.item_id)
    });
    // Stable, so that ties stay in the order of the catalogue.
    items.sort_by(|a, b| b.num_events.total_cmp(&a.num_events));
    let mut pins: Vec<&PinnedItem> = rules.pin.iter().collect();
    pins.sort_by_key(|pin| pin.position);
    pins.retain(|pin| (pin.position as usize) < options.k);
    let mut placed = Vec::new();
    for pin in pins {
        if let Some(found) = items.iter().position(|item| item.item_id == pin.item_id) {
            placed.push((pin.position as usize, items.remove(found)));
        }
    }
    let pinned: HashSet<ItemId> = placed
        .iter()
        .map(|(_, item)| item.item_id.clone())
        .collect();
    for (position, item) in placed {
        items.insert(position.min(items.len()), item);
    }
    items.truncate(options.k);
    let scored = items.into_iter().map(|item| ScoredItem {
        points: 0.0,
        is_pinned: pinned.contains(&item.item_id),
        item_id: item.item_id,
        score: item.num_events as f32, // a count of events; its last digits do not matter
        propensity: None,
        arm: None,
    });
    scored.collect()
}
