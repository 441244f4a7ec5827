//! Pseudo-labels: what the live version is sure that users with few events would take, as targets of little weight.
//!
//! Lee 2013 ("Pseudo-label") trains on the model's own best answers; here on those alone that have at least
//! `release.pseudo_confidence_min` of the softmax over all items, as in FixMatch (Sohn et al. 2020), of items that
//! are new to the user and can be had. They are asked for once, when a release or refit begins, and a few are added
//! to every batch of it. Not here: the warm fit, which has no version before it to ask.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::model::scorer::{Query, ScoreError};
use shared_model::model::sequence::{Sequence, Token};

use super::Learner;
use crate::preprocess::Preprocessor;
use crate::train::host_log_sum_exp;
use crate::train::windows::{Example, Window};

/// Users who are asked about in one release.
const USERS_MAX: usize = 1024;
/// Users scored at once: every one has a score per item.
const USERS_PER_PASS: usize = 16;
/// Windows of a batch for each that is added to it.
const WINDOWS_PER_PSEUDO: usize = 4;

/// Windows whose last event is the live version's guess.
#[derive(Debug, Clone, Default)]
pub(super) struct PseudoLabels {
    windows: Vec<Window>,
}

impl PseudoLabels {
    #[cfg(test)]
    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Adds some to a batch: one for every four windows that are there.
    pub(super) fn add_to(&self, batch: &mut Vec<Window>, rng: &mut StdRng) {
        if self.windows.is_empty() {
            return;
        }
        for _ in 0..batch.len().div_ceil(WINDOWS_PER_PSEUDO) {
            batch.push(self.windows[rng.random_range(0..self.windows.len())].clone());
        }
    }
}

impl Learner {
    /// Asks the live version about users with few events. Where it cannot answer there are no labels, and a
    /// release does without.
    pub(super) fn pseudo_labels(&mut self, preprocessor: &Preprocessor) -> PseudoLabels {
        if self.config.release.pseudo_weight == 0.0 {
            return PseudoLabels::default();
        }
        let users = self.users_with_few_events(preprocessor);
        match pollster::block_on(self.guess(preprocessor, &users)) {
            Ok(windows) => {
                tracing::debug!(
                    num_users = users.len(),
                    num_labels = windows.len(),
                    "pseudo-labels"
                );
                PseudoLabels { windows }
            }
            Err(error) => {
                tracing::warn!(%error, "a release goes without pseudo-labels");
                PseudoLabels::default()
            }
        }
    }

    fn users_with_few_events(&mut self, preprocessor: &Preprocessor) -> Vec<usize> {
        let events_max = self.config.release.pseudo_events_max;
        let timelines = preprocessor.timelines().iter().enumerate();
        let mut users: Vec<usize> = timelines
            .filter(|(_, timeline)| (1..=events_max).contains(&num_acts(timeline)))
            .map(|(user_idx, _)| user_idx)
            .collect();
        let (users, _) = users.partial_shuffle(&mut self.rng, USERS_MAX);
        users.to_vec()
    }

    async fn guess(
        &self,
        preprocessor: &Preprocessor,
        users: &[usize],
    ) -> Result<Vec<Window>, ScoreError> {
        let (Some(live), Some(now_millis)) = (&self.live, preprocessor.watermark_millis()) else {
            return Ok(Vec::new());
        };
        let scorer = &live.ready.scorer;
        let num_items = scorer.num_items();
        let history_len = self.parameters.spec.history_len as usize;
        let release = &self.config.release;
        let mut windows = Vec::new();
        for users in users.chunks(USERS_PER_PASS) {
            let timelines: Vec<&[Example]> = users
                .iter()
                .map(|user_idx| newest(&preprocessor.timelines()[*user_idx], history_len))
                .collect();
            let sequences: Vec<Sequence> = timelines
                .iter()
                .map(|timeline| sequence(timeline, num_items, now_millis))
                .collect();
            let queries: Vec<Query> = sequences
                .iter()
                .enumerate()
                .map(|(sequence_idx, sequence)| Query {
                    sequence_idx,
                    num_known: sequence.tokens.len(),
                    now_millis,
                })
                .collect();
            let scores = scorer.score(&sequences, &queries).await?;
            let rows = scores.chunks_exact(num_items.max(1));
            for ((timeline, user_idx), scores) in timelines.iter().zip(users).zip(rows) {
                let can_be_had =
                    |item_idx: usize| self.items.get(item_idx).is_some_and(|item| item.available);
                let all = &preprocessor.timelines()[*user_idx];
                let guess = confident(scores, all, release.pseudo_confidence_min, can_be_had);
                windows.extend(guess.and_then(|item_idx| {
                    window(timeline, item_idx, now_millis, release.pseudo_weight)
                }));
            }
        }
        Ok(windows)
    }
}

fn num_acts(timeline: &[Example]) -> usize {
    let history = timeline.iter().filter(|example| example.kind.is_history());
    history.count()
}

fn newest(timeline: &[Example], len: usize) -> &[Example] {
    &timeline[timeline.len().saturating_sub(len)..]
}

/// All of a timeline as the model reads it, of items that it knows.
fn sequence(timeline: &[Example], num_items: usize, now_millis: i64) -> Sequence {
    let known = timeline
        .iter()
        .filter(|example| example.kind.is_history() && (example.item_idx as usize) < num_items);
    let tokens: Vec<Token> = known.map(Example::token).collect();
    Sequence { tokens, now_millis }
}

/// The best item that is new to the user and can be had, where its share of the softmax is large enough.
fn confident(
    scores: &[f32],
    timeline: &[Example],
    share_min: f32,
    can_be_had: impl Fn(usize) -> bool,
) -> Option<u32> {
    let is_new = |item_idx: usize| {
        let mut seen = timeline.iter().map(|example| example.item_idx as usize); // u32 fits
        !seen.any(|seen| seen == item_idx)
    };
    let scored = scores.iter().enumerate();
    let (item_idx, score) = scored
        .filter(|(item_idx, _)| can_be_had(*item_idx) && is_new(*item_idx))
        .max_by(|left, right| left.1.total_cmp(right.1))?;
    let share = (score - host_log_sum_exp(scores)).exp();
    (share >= share_min).then_some(item_idx as u32) // fits: NUM_ITEMS_MAX is 2^20
}

/// A timeline with the guess behind it, which alone is learned; `None` without a timeline.
fn window(timeline: &[Example], item_idx: u32, now_millis: i64, weight: f32) -> Option<Window> {
    let last = timeline.last()?;
    let guess = Example {
        item_idx,
        kind: last.kind,
        occurred_at: now_millis.max(last.occurred_at),
        target_weight: weight,
        share: 1.0,
        click: None,
        rating: None,
    };
    let mut examples = timeline.to_vec();
    examples.push(guess);
    Some(Window {
        first_target: timeline.len(),
        examples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use shared_model::event::EventKind;

    fn example(item_idx: u32) -> Example {
        Example {
            item_idx,
            kind: EventKind::Click,
            occurred_at: 1000,
            target_weight: 1.0,
            share: 1.0,
            click: Some(true),
            rating: None,
        }
    }

    #[test]
    fn only_a_sure_guess_of_a_new_item_that_can_be_had_is_a_label() {
        let scores = [2.0, 5.0, 4.0, 0.0]; // shares .04, .70, .26, .005
        let all = |_| true;
        assert_eq!(confident(&scores, &[], 0.6, all), Some(1));
        assert_eq!(confident(&scores, &[], 0.8, all), None);
        assert_eq!(
            confident(&scores, &[example(1)], 0.2, all),
            Some(2),
            "the best was had"
        );
        assert_eq!(
            confident(&scores, &[example(1)], 0.3, all),
            None,
            "of all items, had or not"
        );
        assert_eq!(
            confident(&scores, &[], 0.2, |item_idx| item_idx != 1),
            Some(2)
        );
        assert_eq!(confident(&scores, &[], 0.0, |_| false), None);
    }

    #[test]
    fn the_guess_alone_is_learned_by_its_weight_and_is_added_to_a_quarter() {
        let window = window(&[example(3), example(4)], 7, 500, 0.1).expect("a timeline");
        let targets: Vec<_> = window.targets().collect();
        assert_eq!(targets.len(), 1);
        let (num_seen, guess) = targets[0];
        assert_eq!(
            (num_seen, guess.item_idx, guess.target_weight, guess.click),
            (2, 7, 0.1, None)
        );
        assert_eq!(guess.occurred_at, 1000, "time does not run backwards");
        assert_eq!(super::window(&[], 7, 500, 0.1), None);

        let mut rng = StdRng::seed_from_u64(1);
        let mut batch = vec![window.clone(); 16];
        PseudoLabels {
            windows: vec![window.clone()],
        }
        .add_to(&mut batch, &mut rng);
        assert_eq!(batch.len(), 20);
        PseudoLabels::default().add_to(&mut batch, &mut rng);
        assert_eq!(batch.len(), 20);
    }
}
