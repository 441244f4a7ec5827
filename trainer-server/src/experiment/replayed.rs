//! Decisions of the log, for off-policy estimates: impressions at the first place of a list that carry their propensity.
//!
//! Only the first place: a logged propensity is the probability of standing at a place given the places before it, and
//! at the first place alone that is the plain probability of being shown. Every decision is asked about with the history
//! that its user had then and by a version that had not learned it, so nothing of the future is known.
//!
//! ```text
//! log from `from` ──► impressions at place 0 with a propensity ──► newest decisions_max, with their answers
//! log from 0      ──► histories of their users, to each decision: what would the strategy show? ──► estimate
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::edge::explore::{Exploration, ExplorePolicy};
use shared_model::event::{Event, HistoryEvent};
use shared_model::ids::{ItemId, LogOffset, UserId, Version};

use super::estimate::{Decision, Estimate, estimate};
use super::serve::by_strategy;
use super::{ExperimentFault, Metric, Strategy, fault, in_range};
use crate::event_log::view::LogView;
use crate::event_log::{EventLogError, LogRecord};
use crate::http::{RankedBy, RecommendError, RecommendRequest, Recommender};

/// Decisions of one estimate where the request does not say how many.
const DECISIONS_DEFAULT: u64 = 2000;
const DECISIONS_MAX: u64 = 50_000;
/// Items that a strategy without a pool of its own may show at the first place: the best.
const BEST: usize = 1;
/// Weight of the mean over all items in the reward model, in decisions.
const PRIOR_DECISIONS: f64 = 5.0;
const CLIP_DEFAULT: f64 = 20.0;
/// Effective decisions below which figures mislead.
const EFFECTIVE_MIN: f64 = 30.0;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What would have been shown.
    pub strategy: Strategy,
    /// A version that is kept, to ask the strategy of; the oldest kept one where it is not given. Decisions after what it
    /// learned count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Kinds of events that answer an impression, and within which time.
    #[serde(default)]
    pub metric: Metric,
    /// Whether lists were without what their user had already.
    #[serde(default = "exclude_seen_default")]
    pub exclude_seen: bool,
    /// Largest weight of a decision.
    #[serde(default = "clip_default")]
    pub clip: f64,
    /// The newest of them, at most so many.
    #[serde(default = "decisions_default")]
    pub decisions_max: u64,
}

fn exclude_seen_default() -> bool {
    true
}

fn clip_default() -> f64 {
    CLIP_DEFAULT
}

fn decisions_default() -> u64 {
    DECISIONS_DEFAULT
}

impl Question {
    /// Checks what its type cannot.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), ExperimentFault> {
        if !(1.0..=1e6).contains(&self.clip) {
            let detail = format!("expected 1 to 1000000, found {}", self.clip);
            return Err(fault("/clip", detail));
        }
        in_range("/decisions_max", self.decisions_max, 1, DECISIONS_MAX)?;
        if let Strategy::Exploration(settings) = &self.strategy {
            settings.seeded(0).map_err(|error| {
                let pointer = format!("/strategy/exploration/{}", error.field);
                let detail = format!("expected {}, found {}", error.expected, error.actual);
                fault(pointer, detail)
            })?;
        }
        self.metric.check()
    }
}

/// An estimate and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Answer {
    /// Version that the strategy was asked of.
    pub version: Version,
    /// Log offsets of the impressions.
    pub from: LogOffset,
    /// One past the last.
    pub through: LogOffset,
    /// The figures.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// What to know before using them, a sentence each.
    pub notes: Vec<String>,
}

/// Why there is no estimate.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// The log says nothing about the question.
    #[error("{0}")]
    NoPropensities(String),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] EventLogError),
    /// The version cannot be asked.
    #[error(transparent)]
    Recommend(#[from] RecommendError),
}

/// An impression at the first place, with its answer.
struct Shown {
    offset: LogOffset,
    user_id: UserId,
    item_id: ItemId,
    occurred_at: i64,
    received_at: i64,
    propensity: f64,
    is_answered: bool,
}

/// What was seen on the way, for those who ask why there is nothing.
#[derive(Default)]
struct Counts {
    impressions: u64,
    first_places: u64,
    with_propensity: u64,
}

/// Estimates what the strategy would have earned after `from`, where `version` had learned what was before.
///
/// # Errors
/// There are no propensities, or the log or the version cannot be used.
pub fn answer(
    view: &LogView,
    recommender: &dyn Recommender,
    question: &Question,
    version: Version,
    from: LogOffset,
    history_len: usize,
) -> Result<Answer, EstimateError> {
    let shown = shown(view, question, from)?;
    let first = shown.first().map_or(from, |one| one.offset);
    let asked = Asked {
        recommender,
        strategy: question.strategy,
        exclude_seen: question.exclude_seen,
        version,
        history_len,
    };
    let decisions = asked.decisions(view, &shown)?;
    let estimate = estimate(&decisions, question.clip);
    Ok(Answer {
        version,
        from: first,
        through: view.end(),
        notes: notes(&estimate),
        estimate,
    })
}

fn shown(
    view: &LogView,
    question: &Question,
    from: LogOffset,
) -> Result<Vec<Shown>, EstimateError> {
    let decisions_max = question.decisions_max as usize; // checked to be small
    let window_millis = question.metric.window_millis();
    let mut newest: VecDeque<Shown> = VecDeque::new();
    let mut counts = Counts::default();
    let mut num_gone = 0;
    // Of the newest impression of an item to a user, its number since the first.
    let mut open: HashMap<(UserId, ItemId), usize> = HashMap::new();
    view.walk(from, |offset, record| {
        let LogRecord::Event(stored) = record else {
            return Ok::<_, EventLogError>(());
        };
        let event = stored.event;
        let place = (event.user_id.clone(), event.item_id.clone());
        if event.kind.is_history() {
            let answered = open
                .get(&place)
                .and_then(|number: &usize| number.checked_sub(num_gone));
            let answered = answered.and_then(|idx| newest.get_mut(idx));
            if let Some(shown) = answered
                && question.metric.kinds.contains(&event.kind)
                && stored.received_at.saturating_sub(shown.received_at) <= window_millis
            {
                shown.is_answered = true;
            }
            return Ok(());
        }
        counts.impressions += 1;
        if event.position != Some(0) {
            return Ok(());
        }
        counts.first_places += 1;
        let Some(propensity) = event.propensity else {
            return Ok(());
        };
        counts.with_propensity += 1;
        if newest.len() == decisions_max
            && let Some(gone) = newest.pop_front()
        {
            let place = (gone.user_id, gone.item_id);
            if open.get(&place) == Some(&num_gone) {
                open.remove(&place);
            }
            num_gone += 1;
        }
        open.insert(place, num_gone + newest.len());
        newest.push_back(Shown {
            offset,
            user_id: event.user_id,
            item_id: event.item_id,
            occurred_at: event.occurred_at,
            received_at: stored.received_at,
            propensity,
            is_answered: false,
        });
        Ok(())
    })?;
    let shown: Vec<Shown> = newest.into();
    match refusal(&shown, &counts, from) {
        Some(why) => Err(EstimateError::NoPropensities(why)),
        None => Ok(shown),
    }
}

fn refusal(shown: &[Shown], counts: &Counts, from: LogOffset) -> Option<String> {
    let Counts {
        impressions,
        first_places,
        with_propensity,
    } = counts;
    if shown.is_empty() {
        return Some(format!(
            "no impression since log offset {from} has position 0 and a propensity: of {impressions} impressions \
             {first_places} have position 0 and {with_propensity} of these a propensity; explore, and send propensity \
             and position with impressions"
        ));
    }
    if shown.iter().all(|one| one.propensity >= 1.0) {
        return Some(format!(
            "all {with_propensity} propensities since log offset {from} are 1: nothing was left to chance, so the log \
             says nothing about other choices; explore"
        ));
    }
    None
}

struct Asked<'a> {
    recommender: &'a dyn Recommender,
    strategy: Strategy,
    exclude_seen: bool,
    version: Version,
    /// Events of a user that are ranked from.
    history_len: usize,
}

impl Asked<'_> {
    /// Walks the log once more, with the histories of the users that are asked about.
    fn decisions(
        &self,
        view: &LogView,
        shown: &[Shown],
    ) -> Result<Vec<Decision<usize>>, EstimateError> {
        let mut users: HashMap<&UserId, usize> = HashMap::new();
        for one in shown {
            let next = users.len();
            users.entry(&one.user_id).or_insert(next);
        }
        let mut histories: Vec<VecDeque<HistoryEvent>> = vec![VecDeque::new(); users.len()];
        let mut rewards = RewardModel::default();
        let mut decisions = Vec::with_capacity(shown.len());
        let mut waiting = shown.iter().peekable();
        view.walk(LogOffset(0), |offset, record| {
            if let Some(one) = waiting.next_if(|one| one.offset == offset) {
                let user = users[&one.user_id];
                let history = histories[user].iter().cloned().collect();
                let target = self.shown_by_strategy(history, one.occurred_at)?;
                decisions.push(rewards.decision(user, one, &target));
            }
            if let LogRecord::Event(stored) = record
                && stored.event.kind.is_history()
                && let Some(user) = users.get(&stored.event.user_id)
            {
                remember(&mut histories[*user], stored.event, self.history_len);
            }
            Ok::<_, EstimateError>(())
        })?;
        Ok(decisions)
    }

    /// What stands at the first place, with probabilities.
    fn shown_by_strategy(
        &self,
        history: Vec<HistoryEvent>,
        now_millis: i64,
    ) -> Result<Vec<(ItemId, f64)>, EstimateError> {
        let request = RecommendRequest {
            user_id: None,
            history: Some(history),
            k: BEST,
            exclude_seen: self.exclude_seen,
            candidates: None,
            now_millis: Some(now_millis),
            exploration: None,
            moderation: Arc::default(), // what operators forbid now says nothing of then
            ranked_by: RankedBy::Score,
            version: None,
            is_for_show: false,
        };
        let mut request = by_strategy(&request, &self.strategy, 0)?;
        let drawn = request.exploration.take(); // by formula instead: probabilities are wanted, not a draw
        request.version = Some(self.version);
        request.k = drawn.map_or(BEST, |drawn| drawn.pool());
        let ranked = self.recommender.recommend(request)?;
        let scores: Vec<f64> = ranked
            .items
            .iter()
            .map(|item| f64::from(item.score))
            .collect();
        let probabilities = at_first_place(drawn, &scores);
        let items = ranked.items.into_iter().map(|item| item.item_id);
        Ok(items.zip(probabilities).collect())
    }
}

/// Of items with these scores, best first.
fn at_first_place(drawn: Option<Exploration>, scores: &[f64]) -> Vec<f64> {
    let best = scores.first().copied().unwrap_or_default();
    let num_items = scores.len() as f64; // at most the largest pool
    let is_best = |idx: usize| f64::from(u8::from(idx == 0));
    match drawn.map(|drawn| drawn.policy()) {
        None => (0..scores.len()).map(is_best).collect(),
        Some(ExplorePolicy::Epsilon(epsilon)) => {
            let probability = |idx| epsilon / num_items + (1.0 - epsilon) * is_best(idx);
            (0..scores.len()).map(probability).collect()
        }
        Some(ExplorePolicy::Temperature(temperature)) => {
            let weights = scores
                .iter()
                .map(|score| ((score - best) / temperature).exp());
            let weights: Vec<f64> = weights.collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|weight| weight / sum).collect()
        }
    }
}

fn remember(history: &mut VecDeque<HistoryEvent>, event: Event, history_len: usize) {
    if history.len() == history_len {
        history.pop_front();
    }
    history.push_back(HistoryEvent {
        item_id: event.item_id,
        kind: event.kind,
        occurred_at: event.occurred_at,
    });
}

/// Mean answers by item over the decisions before, drawn towards the mean over all items.
#[derive(Default)]
struct RewardModel {
    /// Decisions and answers.
    items: HashMap<ItemId, [f64; 2]>,
    all: [f64; 2],
}

impl RewardModel {
    fn of(&self, item_id: &ItemId) -> f64 {
        let [num_all, answered_all] = self.all;
        let mean = answered_all / num_all.max(1.0);
        let [num, answered] = self.items.get(item_id).copied().unwrap_or_default();
        (answered + PRIOR_DECISIONS * mean) / (num + PRIOR_DECISIONS)
    }

    /// The decision as it looked before its answer, which is then learned.
    fn decision(&mut self, user: usize, one: &Shown, target: &[(ItemId, f64)]) -> Decision<usize> {
        let own = target.iter().find(|(item_id, _)| *item_id == one.item_id);
        let modelled_target = target
            .iter()
            .map(|(item_id, share)| share * self.of(item_id));
        let reward = f64::from(u8::from(one.is_answered));
        let decision = Decision {
            user,
            logged: one.propensity,
            target: own.map_or(0.0, |(_, probability)| *probability),
            reward,
            modelled: self.of(&one.item_id),
            modelled_target: modelled_target.sum(),
        };
        let counts = self.items.entry(one.item_id.clone()).or_default();
        for counts in [counts, &mut self.all] {
            counts[0] += 1.0;
            counts[1] += reward;
        }
        decision
    }
}

fn notes(estimate: &Estimate) -> Vec<String> {
    let mut notes = Vec::new();
    let Estimate {
        effective_decisions,
        mean_weight,
        share_clipped,
        num_decisions,
        ..
    } = estimate;
    if *effective_decisions < EFFECTIVE_MIN {
        notes.push(format!(
            "The estimate rests on {effective_decisions:.1} of {num_decisions} decisions: too few, the intervals are too \
             narrow then."
        ));
    }
    if mean_weight.upper < 1.0 || mean_weight.lower > 1.0 {
        notes.push(format!(
            "The mean weight is {:.2} [{:.2}, {:.2}] and not 1: the log could not show all that the strategy shows, lists \
             were made of other histories or candidates, propensities are wrong, or too much is clipped.",
            mean_weight.value, mean_weight.lower, mean_weight.upper
        ));
    }
    if *share_clipped > 0.0 {
        notes.push(format!(
            "{:.2} % of the weights are clipped, which makes IPS too low.",
            100.0 * share_clipped
        ));
    }
    notes
}
