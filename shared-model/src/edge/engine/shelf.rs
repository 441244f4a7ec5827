//! A shelf: the list that a page shows, with rules, diversity and chance over the scores of one version.
//!
//! Rules come first (`rules`), then what they leave free is filled: in the order of scores, by marginal relevance
//! (`diversity`), or by draws (`edge::explore`), and by both of these together.
//! Every item carries the probability of standing where it stands, given the places before it:
//!
//! * 1 for a required item, since it stands there whatever chance says;
//! * for a drawn one, that of the draw among what may still be placed there, by scores that include the points of rules and of the
//!   personal model.
//!
//! Points, exclusions and positions are fixed before the first draw, so the product over the places is the probability
//! of the list among all lists that these rules allow; it says nothing of lists without them.

use serde::Serialize;

use super::diversity::{Diversity, MarginalRelevance, Vectors};
use super::rules::{Applied, POINTS_MAX, Rules};
use super::similar::vectors_of;
use super::{EdgeEngine, EngineError, K_MAX, Personal, PersonalStatus, RankRequest};
use super::{ReadyVersion, top_k};
use crate::codec::state::CodeState;
use crate::edge::explore::{Exploration, Placed};
use crate::ids::{ItemId, Version};
use crate::model::scorer::ScoreError;

/// A shelf wanted.
#[derive(Debug, Clone, Copy)]
pub struct ShelfRequest<'a> {
    /// For whom, of what, how many.
    pub rank: RankRequest<'a>,
    /// What the shop says of it.
    pub rules: &'a Rules,
    /// Whether its items are to be unlike each other.
    pub diversity: Option<&'a Diversity>,
    /// Whether places are drawn by chance.
    pub exploration: Option<&'a Exploration>,
    /// What was learned of whose history it is, if that is to count.
    pub personal: Option<&'a Personal>,
}

/// One item of a shelf.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShelfItem {
    /// The item.
    pub item_id: ItemId,
    /// Its score by the model alone, as it is explained; the order of a shelf is not always that of scores.
    pub score: f32,
    /// What rules and the personal model added to the score, or took from it.
    pub points: f64,
    /// Whether a rule gave it this place.
    pub required: bool,
    /// See [`Placed::propensity`]; 1 where nothing is drawn.
    pub propensity: f64,
}

/// A shelf by one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shelf {
    /// The version that scored.
    pub model_version: Version,
    /// First place first.
    pub items: Vec<ShelfItem>,
    /// Required items that are not on it, in the order of the rules.
    pub missing: Vec<ItemId>,
    /// Of the personal model, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal: Option<PersonalStatus>,
}

impl ReadyVersion {
    /// Makes a shelf; the version is passed on as it is.
    ///
    /// # Errors
    /// The device failed.
    pub async fn shelf(
        &self,
        state: &CodeState,
        model_version: Version,
        request: &ShelfRequest<'_>,
    ) -> Result<Shelf, ScoreError> {
        let rank = &request.rank;
        let scores = self.score_all(state, rank.history, rank.now_millis).await?;
        let k = rank.options.k.min(K_MAX);
        let mut applied = self.apply(state, rank, request.rules, k);
        if let Some(personal) = request.personal {
            let points = self.personal_points(personal, rank.history, rank.now_millis);
            for (item_idx, points) in points {
                let sum = applied.points.entry(item_idx).or_insert(0.0);
                *sum = (*sum + points).clamp(-POINTS_MAX, POINTS_MAX);
            }
        }
        let adjusted = applied.adjusted(&scores);
        let free = std::mem::take(&mut applied.free);
        let num_free = k - applied.required.len(); // each of these has a place below k
        let list = match (request.diversity, request.exploration) {
            (None, None) => {
                let best = top_k(free, &adjusted, num_free).into_iter();
                let mut best = best.map(certain);
                applied.fill(k, |_| best.next())
            }
            (None, Some(exploration)) => {
                let mut drawn = exploration.draw(free, &adjusted, num_free).into_iter();
                applied.fill(k, |_| drawn.next())
            }
            (Some(diversity), exploration) => {
                let wish = (*diversity, exploration);
                self.unlike(&applied, free, &adjusted, k, wish).await?
            }
        };
        let item = |placed: &Placed| {
            let item_idx = placed.item_idx;
            let is_item = |(_, required): &(usize, u32)| *required == item_idx;
            ShelfItem {
                item_id: state.items[item_idx as usize].item_id.clone(),
                score: scores[item_idx as usize],
                points: applied.points.get(&item_idx).copied().unwrap_or(0.0),
                required: applied.required.iter().any(is_item),
                propensity: placed.propensity,
            }
        };
        let items: Vec<ShelfItem> = list.iter().map(item).collect();
        let listed = |item_id: &ItemId| items.iter().any(|item| item.item_id == *item_id);
        let missing = request.rules.missing(listed);
        Ok(Shelf {
            model_version,
            items,
            missing,
            personal: request.personal.map(Personal::status),
        })
    }

    /// Fills the free places with items unlike those before them, by chance where that is wanted.
    async fn unlike(
        &self,
        applied: &Applied,
        free: Vec<u32>,
        scores: &[f32],
        k: usize,
        (diversity, exploration): (Diversity, Option<&Exploration>),
    ) -> Result<Vec<Placed>, ScoreError> {
        let pool_len = match exploration {
            Some(exploration) => diversity.pool().min(exploration.pool()),
            None => diversity.pool(),
        };
        let mut pool = top_k(free, scores, pool_len.max(k));
        let behind = pool.split_off(pool_len.min(pool.len()));
        let required = applied.required.iter().map(|(_, item_idx)| *item_idx);
        let item_idxs: Vec<u32> = pool.iter().copied().chain(required).collect();
        let values = vectors_of(&self.scorer, &item_idxs).await?;
        let vectors = Vectors {
            item_idxs: &item_idxs,
            values: &values,
            dim: values.len() / item_idxs.len().max(1),
        };
        let mut marginal = MarginalRelevance::new(diversity, &pool, scores, vectors);
        let mut draws = exploration.map(Exploration::draws);
        let mut behind = behind.into_iter().map(certain);
        let next = |list: &[Placed]| {
            let of_pool = marginal.next(list, draws.as_mut());
            of_pool.or_else(|| behind.next())
        };
        Ok(applied.fill(k, next))
    }
}

fn certain(item_idx: u32) -> Placed {
    Placed {
        item_idx,
        propensity: 1.0,
    }
}

impl EdgeEngine {
    /// Makes a shelf by the live version.
    ///
    /// # Errors
    /// Nothing is live yet, or the device failed.
    pub async fn shelf(&mut self, request: &ShelfRequest<'_>) -> Result<Shelf, EngineError> {
        self.revive();
        let (Some((_, ready)), Some(live)) = (&self.ready, self.sync.live()) else {
            return Err(EngineError::NoModel);
        };
        let request = ShelfRequest {
            rank: request.rank.moderated(self.moderation.as_ref()),
            ..*request
        };
        let version = live.manifest.version;
        Ok(ready.shelf(&live.state, version, &request).await?)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
