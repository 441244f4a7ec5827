//! What a batch asks of the live version: sequences, positions, and the items that came next.
//!
//! Not here: what is learned from the answers (`train::fast_step`).

use shared_model::model::scorer::{Query, Scorer};
use shared_model::model::sequence::Sequence;

use super::LearnReport;
use crate::preprocess::{Batch, Preprocessor, UserIdx};
use crate::train::fast_step::ScoredEvents;
use crate::train::host_log_sum_exp;
use crate::train::windows::Example;

/// A batch as sequences and the positions whose next item is known.
pub(super) struct Asked {
    pub(super) sequences: Vec<Sequence>,
    /// Whose each sequence is.
    pub(super) users: Vec<UserIdx>,
    pub(super) queries: Vec<Query>,
    pub(super) targets: Vec<u32>,
    pub(super) weights: Vec<f32>,
}

impl Asked {
    /// Consecutive events of one user share a sequence, so that one causal pass serves them all.
    pub(super) fn of(
        preprocessor: &Preprocessor,
        batch: &Batch,
        history_len: usize,
        num_items: usize,
    ) -> Self {
        let mut by_user: Vec<(UserIdx, usize)> = Vec::new();
        for (user, _) in &batch.examples {
            match by_user.iter_mut().find(|(known, _)| known == user) {
                Some((_, num_new)) => *num_new += 1,
                None => by_user.push((*user, 1)),
            }
        }
        let mut asked = Self {
            sequences: Vec::new(),
            users: Vec::new(),
            queries: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
        };
        for (user, num_new) in by_user {
            let timeline = &preprocessor.timelines()[user.0 as usize];
            let mut first_new = timeline.len().saturating_sub(num_new);
            while first_new < timeline.len() {
                let last_new = (first_new + (history_len / 2).max(1)).min(timeline.len());
                asked.push(&timeline[..last_new], first_new, history_len, num_items);
                asked.users.resize(asked.sequences.len(), user);
                first_new = last_new;
            }
        }
        asked
    }

    /// One sequence whose examples from `first_new` on are asked for.
    fn push(
        &mut self,
        timeline: &[Example],
        first_new: usize,
        history_len: usize,
        num_items: usize,
    ) {
        let history: Vec<(usize, &Example)> = timeline
            .iter()
            .enumerate()
            .filter(|(_, e)| e.kind.is_history() && (e.item_idx as usize) < num_items)
            .collect();
        let Some((last_idx, _)) = timeline.iter().enumerate().next_back() else {
            return;
        };
        // The last event is only predicted, so history_len events before it fit.
        let known: Vec<(usize, &Example)> = history
            .into_iter()
            .filter(|(idx, _)| *idx < last_idx)
            .collect();
        let kept = &known[known.len().saturating_sub(history_len)..];
        let sequence_idx = self.sequences.len();
        let num_queries = self.queries.len();
        for (idx, example) in timeline.iter().enumerate().skip(first_new) {
            if example.target_weight == 0.0 || example.item_idx as usize >= num_items {
                continue;
            }
            let num_known = kept
                .iter()
                .take_while(|(kept_idx, _)| *kept_idx < idx)
                .count();
            self.queries.push(Query {
                sequence_idx,
                num_known,
                now_millis: example.occurred_at,
            });
            self.targets.push(example.item_idx);
            self.weights.push(example.target_weight);
        }
        if self.queries.len() > num_queries {
            let now_millis = timeline[last_idx].occurred_at;
            self.sequences.push(Sequence {
                tokens: kept.iter().map(|(_, example)| example.token()).collect(),
                now_millis,
            });
        }
    }

    pub(super) fn scored(
        &self,
        users: Vec<f32>,
        tastes: Vec<f32>,
        scores: Vec<f32>,
        scorer: &Scorer,
    ) -> ScoredEvents {
        let mut distinct: Vec<i64> = self.queries.iter().map(|query| query.now_millis).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let moment = |query: &Query| distinct.partition_point(|now| *now < query.now_millis) as u32; // fits: a batch is small
        let neighbour_gains = scorer.neighbour_gains(&self.sequences, &self.queries);
        ScoredEvents {
            neighbour_gains,
            num_items: scorer.num_items(),
            users,
            tastes,
            scores,
            targets: self.targets.clone(),
            weights: self.weights.clone(),
            moments: self.queries.iter().map(moment).collect(),
            prior_features: distinct
                .iter()
                .map(|now| scorer.prior_features(*now))
                .collect(),
        }
    }
}

/// Prequential figures of the live version on a batch, before it is learned.
pub(super) fn prequential(scores: &[f32], num_items: usize, targets: &[u32]) -> LearnReport {
    let (mut loss, mut num_hits) = (0.0_f32, 0_u32);
    for (row, target) in scores.chunks_exact(num_items).zip(targets) {
        let target_score = row[*target as usize];
        loss += host_log_sum_exp(row) - target_score;
        num_hits += u32::from(row.iter().filter(|score| **score > target_score).count() < 10);
    }
    let num_events = targets.len() as f32;
    LearnReport {
        num_learned: targets.len(),
        log_loss: Some(loss / num_events),
        hit_rate_at_10: Some(num_hits as f32 / num_events),
        popularity_hit_rate_at_10: None,
        skipped: None,
    }
}

/// The baseline beside it: items by their counts of the middle half-life, which the live version has too.
pub(super) fn popularity_hit_rate(events: &ScoredEvents) -> f32 {
    let mut num_hits = 0_u32;
    for (target, moment) in events.targets.iter().zip(&events.moments) {
        let features = &events.prior_features[*moment as usize];
        let num_half_lives = features.len() / events.num_items;
        let counts = || {
            features
                .iter()
                .skip(num_half_lives / 2)
                .step_by(num_half_lives)
        };
        let own = features[*target as usize * num_half_lives + num_half_lives / 2];
        num_hits += u32::from(counts().filter(|count| **count > own).count() < 10);
    }
    num_hits as f32 / events.targets.len() as f32
}
