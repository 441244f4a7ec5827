//! Faithfulness: whether the events that an explanation names are those that the score hangs on.
//!
//! Comprehensiveness (DeYoung et al. 2020, "ERASER", arXiv:1911.03429): the `m` events that an explanation puts
//! first are forgotten together, and the item is scored again. A faithful explanation loses more than `m` events
//! drawn at random, and than the `m` newest. The effects were measured by forgetting one event at a time, so for
//! `m = 1` this holds by construction; for more it need not, since events stand for one another.
//!
//! ```text
//! per user   last 50 events ─► best unseen item ─► explanation ─► score lost without m events
//! over users mean, and the interval of the paired difference by resampling users
//! ```
//!
//! Input: a version and a dataset. The seed comes from outside.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{
    EngineError, ExplainRequest, RankOptions, RankRequest, ReadyVersion,
};
use shared_model::event::HistoryEvent;
use shared_model::ids::Version;
use shared_model::model::scorer::{Query, ScoreError};
use shared_model::model::sequence::Sequence;

use crate::dataset::{Dataset, DatasetEvent};

/// How many events are forgotten.
pub const NUMS_FORGOTTEN: [usize; 3] = [1, 3, 5];
/// Ways to choose them.
pub const NUM_CHOICES: usize = 3;
/// Users with fewer events are left out: of five, any five are all.
const HISTORY_LEN_MIN: usize = 10;
/// Random sets per user and number, averaged.
const NUM_RANDOM_SETS: usize = 5;
/// Resamples of the interval.
const NUM_RESAMPLES: usize = 1000;

/// What forgetting `num_forgotten` events costs, over all users.
#[derive(Debug, Clone, PartialEq)]
pub struct Comprehensiveness {
    /// Events forgotten.
    pub num_forgotten: usize,
    /// Mean loss by the events of the explanation, random ones, the newest.
    pub lost: [f64; NUM_CHOICES],
    /// Mean rank of the item afterwards, from 1; before it was 1.
    pub rank: [f64; NUM_CHOICES],
    /// Explanation minus random: middle 95 % of 1,000 resamples of the users.
    pub over_random: [f64; 2],
    /// Explanation minus newest, likewise.
    pub over_newest: [f64; 2],
}

/// One user: losses and ranks by number forgotten and choice.
type OfUser = [[(f64, f64); NUM_CHOICES]; NUMS_FORGOTTEN.len()];

/// Asks `num_users` of those with enough events before `split`, drawn from `seed`; answers with how many there were.
///
/// # Errors
/// The device failed, or nobody has enough events.
pub async fn comprehensiveness(
    (ready, state): (&ReadyVersion, &CodeState),
    dataset: &Dataset,
    split: usize,
    num_users: usize,
    seed: u64,
) -> Result<(usize, Vec<Comprehensiveness>), EngineError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut histories = histories(dataset, &dataset.events[..split]);
    histories.shuffle(&mut rng);
    let now_millis = dataset.events[split.saturating_sub(1)].occurred_at;
    let mut users: Vec<OfUser> = Vec::with_capacity(num_users);
    for history in histories.into_iter().take(num_users) {
        let user = Asked {
            ready,
            state,
            history,
            now_millis,
        };
        if let Some(of_user) = user.losses(&mut rng).await? {
            users.push(of_user);
        }
    }
    let figures = (0..NUMS_FORGOTTEN.len()).map(|idx| figures(&users, idx, &mut rng));
    Ok((users.len(), figures.collect()))
}

/// Histories of the users with enough events, oldest event first, in the order of the users.
fn histories(dataset: &Dataset, events: &[DatasetEvent]) -> Vec<Vec<HistoryEvent>> {
    let mut histories = vec![Vec::new(); dataset.users.len()];
    for event in events {
        histories[event.user_idx as usize].push(dataset.to_history(event));
    }
    histories.retain(|history| history.len() >= HISTORY_LEN_MIN);
    histories
}

struct Asked<'a> {
    ready: &'a ReadyVersion,
    state: &'a CodeState,
    history: Vec<HistoryEvent>,
    now_millis: i64,
}

impl Asked<'_> {
    /// `None` where everything has been seen.
    async fn losses(&self, rng: &mut StdRng) -> Result<Option<OfUser>, EngineError> {
        let options = RankOptions {
            k: 1,
            exclude_seen: true,
        };
        let request = RankRequest {
            history: &self.history,
            candidates: None,
            options: &options,
            now_millis: self.now_millis,
            moderation: None,
        };
        let best = self.ready.rank(self.state, &request).await?;
        let Some(best) = best.first() else {
            return Ok(None);
        };
        let item_idx = self
            .ready
            .item_idx(&best.item_id)
            .map_or(0, |idx| idx as usize); // just ranked
        let by_effect = self.by_effect(&best.item_id).await?;
        let read_from = self.history.len() - by_effect.len();
        let read: Vec<usize> = (read_from..self.history.len()).collect();
        let mut sets: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for (idx, num_forgotten) in NUMS_FORGOTTEN.iter().enumerate() {
            sets.push((idx, 0, by_effect[..*num_forgotten].to_vec()));
            for _ in 0..NUM_RANDOM_SETS {
                let drawn = read.choose_multiple(rng, *num_forgotten);
                sets.push((idx, 1, drawn.copied().collect()));
            }
            sets.push((idx, 2, read[read.len() - num_forgotten..].to_vec()));
        }
        let forgotten: Vec<&[usize]> = sets.iter().map(|(_, _, set)| set.as_slice()).collect();
        let scores = self.scores_without(&forgotten).await?;
        let mut of_user = OfUser::default();
        let (full, without) = scores.split_at(self.state.items.len());
        for ((idx, choice, _), scores) in sets
            .iter()
            .zip(without.chunks_exact(self.state.items.len()))
        {
            let share = if *choice == 1 {
                1.0 / NUM_RANDOM_SETS as f64
            } else {
                1.0
            };
            let (lost, rank) = &mut of_user[*idx][*choice];
            *lost += share * f64::from(full[item_idx] - scores[item_idx]);
            *rank += share * self.rank_of(item_idx, scores);
        }
        Ok(Some(of_user))
    }

    /// Positions in the history of the events that the model reads, the one that raises the score most first.
    async fn by_effect(
        &self,
        item_id: &shared_model::ids::ItemId,
    ) -> Result<Vec<usize>, EngineError> {
        let request = ExplainRequest {
            history: &self.history,
            item_id,
            k: self.history.len(),
            now_millis: self.now_millis,
        };
        let explained = self.ready.explain(self.state, Version(0), &request).await?;
        let mut effects = explained.events;
        effects.sort_by(|a, b| b.effect.total_cmp(&a.effect));
        // Events of one basket share a time, and so may only be told apart by the item; twins are interchangeable.
        let mut taken = vec![false; self.history.len()];
        let mut order = Vec::with_capacity(effects.len());
        for effect in &effects {
            let is_it = |(idx, event): &(usize, &HistoryEvent)| {
                !taken[*idx]
                    && event.item_id == effect.item_id
                    && event.occurred_at == effect.occurred_at
            };
            let found = self.history.iter().enumerate().rev().find(is_it);
            if let Some((idx, _)) = found {
                taken[idx] = true;
                order.push(idx);
            }
        }
        Ok(order)
    }

    /// Scores of the whole history, and then without each of the sets: `[1 + sets, num_items]`.
    async fn scores_without(&self, sets: &[&[usize]]) -> Result<Vec<f32>, ScoreError> {
        let mut sequences: Vec<Sequence> = Vec::with_capacity(1 + sets.len());
        for set in std::iter::once(&[][..]).chain(sets.iter().copied()) {
            let kept = self.history.iter().enumerate();
            let kept: Vec<HistoryEvent> = kept
                .filter(|(idx, _)| !set.contains(idx))
                .map(|(_, event)| event.clone())
                .collect();
            sequences.push(self.ready.sequence(self.state, &kept, self.now_millis));
        }
        let queries: Vec<Query> = sequences
            .iter()
            .enumerate()
            .map(|(sequence_idx, sequence)| Query {
                sequence_idx,
                num_known: sequence.tokens.len(),
                now_millis: self.now_millis,
            })
            .collect();
        self.ready.scorer.score(&sequences, &queries).await
    }

    /// Rank among the items that the user had not seen, from 1.
    fn rank_of(&self, item_idx: usize, scores: &[f32]) -> f64 {
        let is_seen = |idx: usize| {
            let item_id = &self.state.items[idx].item_id;
            self.history.iter().any(|event| event.item_id == *item_id)
        };
        let above = (0..scores.len()).filter(|idx| scores[*idx] > scores[item_idx]);
        1.0 + above.filter(|idx| !is_seen(*idx)).count() as f64
    }
}

fn figures(users: &[OfUser], number_idx: usize, rng: &mut StdRng) -> Comprehensiveness {
    let num_users = users.len().max(1) as f64;
    let mean = |of: &dyn Fn(&OfUser) -> f64| users.iter().map(of).sum::<f64>() / num_users;
    let lost = |user: &OfUser, choice: usize| user[number_idx][choice].0;
    let mut over = |other: usize| {
        let differences: Vec<f64> = users
            .iter()
            .map(|user| lost(user, 0) - lost(user, other))
            .collect();
        interval(&differences, rng)
    };
    let (over_random, over_newest) = (over(1), over(2));
    Comprehensiveness {
        num_forgotten: NUMS_FORGOTTEN[number_idx],
        lost: std::array::from_fn(|choice| mean(&|user| lost(user, choice))),
        rank: std::array::from_fn(|choice| mean(&|user| user[number_idx][choice].1)),
        over_random,
        over_newest,
    }
}

/// Middle 95 % of the means of resamples, as many drawn as there are (Efron & Tibshirani 1993).
#[must_use]
pub fn interval(values: &[f64], rng: &mut StdRng) -> [f64; 2] {
    if values.is_empty() {
        return [f64::NAN; 2];
    }
    let mut means: Vec<f64> = (0..NUM_RESAMPLES)
        .map(|_| {
            let drawn = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]);
            drawn.sum::<f64>() / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    [
        means[NUM_RESAMPLES / 40],
        means[NUM_RESAMPLES - 1 - NUM_RESAMPLES / 40],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_mean_and_shrinks_with_the_spread() {
        let mut rng = StdRng::seed_from_u64(1);
        let values: Vec<f64> = (0..400).map(|idx| f64::from(idx % 5)).collect();
        let [low, high] = interval(&values, &mut rng);
        assert!(low < 2.0 && 2.0 < high, "{low} {high}");
        assert!((high - low - 4.0 * 0.0707).abs() < 0.05, "{low} {high}");
        assert_eq!(interval(&[3.0, 3.0], &mut rng), [3.0, 3.0]);
    }
}
