//! Ranking for a user at a place: the arm that the user has, as a request to the recommender.
//!
//! The arm decides how places are drawn; what the request itself wishes in that is for users in no arm.

use std::sync::Arc;

use shared_model::ids::UserId;

use super::interleave::{Team, team_draft};
use super::{Design, Experiment, Strategy};
use crate::http::{
    RankedBy, RecommendError, RecommendRequest, RecommendResponse, Recommender, ScoredItem,
};

/// Whose list it is, and what runs where it is shown.
#[derive(Debug, Clone)]
pub struct Visit {
    /// What runs there.
    pub experiment: Arc<Experiment>,
    /// The unit.
    pub user_id: UserId,
    /// Of draws and drafts; new for every list.
    pub seed: u64,
}

/// Ranks as the arm of the user says. Users in no arm, and those whose arm needs a version that is kept no more, get
/// what they would get without an experiment, and no arm.
///
/// # Errors
/// As [`Recommender::recommend`].
pub fn ranked(
    recommender: &dyn Recommender,
    request: RecommendRequest,
    visit: &Visit,
) -> Result<RecommendResponse, RecommendError> {
    let Visit {
        experiment, seed, ..
    } = visit;
    let in_arm = match experiment.asked.design {
        Design::Interleave => interleaved(recommender, &request, experiment, *seed),
        Design::Split => {
            let unit = visit.user_id.as_str();
            let Some(arm_idx) = experiment.arm_of(unit, experiment.shares()) else {
                return recommender.recommend(request);
            };
            let strategy = &experiment.asked.arms[arm_idx].strategy;
            let ranked = recommender.recommend(by_strategy(&request, strategy, *seed)?);
            ranked.map(|mut response| {
                response.arm = Some(experiment.label(arm_idx));
                response
            })
        }
    };
    match in_arm {
        Err(RecommendError::NotKept(version)) => {
            let experiment = &experiment.asked.name;
            tracing::warn!(%version, "an arm of {experiment} ranks by version {version}, which is kept no more");
            recommender.recommend(request)
        }
        other => other,
    }
}

/// A request as a strategy answers it.
///
/// # Errors
/// The settings of an exploration are out of range, which no experiment's are.
pub fn by_strategy(
    request: &RecommendRequest,
    strategy: &Strategy,
    seed: u64,
) -> Result<RecommendRequest, RecommendError> {
    let mut request = RecommendRequest {
        exploration: None,
        ..request.clone()
    };
    match strategy {
        Strategy::Model => {}
        Strategy::Popularity => request.ranked_by = RankedBy::Popularity,
        Strategy::Version(version) => request.version = Some(*version),
        Strategy::Exploration(settings) => {
            let drawn = settings.seeded(seed);
            let drawn = drawn.map_err(|error| RecommendError::Failed(error.to_string()))?;
            request.exploration = Some(drawn);
        }
    }
    Ok(request)
}

/// One list of both arms; every item says whose it is.
fn interleaved(
    recommender: &dyn Recommender,
    request: &RecommendRequest,
    experiment: &Experiment,
    seed: u64,
) -> Result<RecommendResponse, RecommendError> {
    let mut lists = Vec::with_capacity(2);
    for arm in &experiment.asked.arms {
        lists.push(recommender.recommend(by_strategy(request, &arm.strategy, seed)?)?);
    }
    // What operators have given a place is nobody's merit.
    let mut pins: Vec<(usize, ScoredItem)> = Vec::new();
    for list in &mut lists {
        let pinned = list.items.iter().enumerate();
        for (position, item) in pinned.filter(|(_, item)| item.is_pinned) {
            if pins.iter().all(|(_, one)| one.item_id != item.item_id) {
                pins.push((position, item.clone()));
            }
        }
        list.items.retain(|item| !item.is_pinned);
    }
    pins.sort_by_key(|(position, _)| *position);
    let num_drafted = request.k.saturating_sub(pins.len());
    let ids =
        |list: &RecommendResponse| list.items.iter().map(|item| item.item_id.clone()).collect();
    let [first, second]: [Vec<_>; 2] = [ids(&lists[0]), ids(&lists[1])];
    let drafted = team_draft(&first, &second, num_drafted, seed);
    let item = |(team, item_idx): (Team, usize)| ScoredItem {
        arm: Some(experiment.label(team as usize)), // teams are in the order of the arms
        propensity: None, // of its own list, and of no meaning in this one
        ..lists[team as usize].items[item_idx].clone()
    };
    let mut items: Vec<ScoredItem> = drafted.into_iter().map(item).collect();
    for (position, item) in pins {
        let item = ScoredItem {
            propensity: None,
            ..item
        };
        items.insert(position.min(items.len()), item);
    }
    Ok(RecommendResponse {
        model_version: lists[0].model_version,
        arm: None,
        items,
    })
}
