//! Forgetting: what a release costs users who were not seen lately.
//!
//! For a sample of them the newest item they took is scored by the release and by the version before it; the
//! difference of the mean log loss is the measure, above zero where something was forgotten. Both have
//! learned that event, so only their difference means anything.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::edge::engine::ReadyVersion;
use shared_model::model::scorer::{Query, ScoreError, Scorer};
use shared_model::model::sequence::Sequence;

use super::Learner;
use crate::gate::mean_log_loss;
use crate::preprocess::{Preprocessor, UserIdx};

/// Users in a sample.
const USERS_MAX: usize = 256;

/// Users scored at once.
const USERS_PER_PASS: usize = 16;

/// Questions about users who were not seen lately.
struct Sample {
    sequences: Vec<Sequence>,
    queries: Vec<Query>,
    targets: Vec<u32>,
}

impl Learner {
    /// Mean log loss of `release` minus that of the live version; `None` without users to ask about.
    ///
    /// # Errors
    /// The device failed.
    pub async fn forgetting(
        &self,
        preprocessor: &Preprocessor,
        release: &ReadyVersion,
    ) -> Result<Option<f32>, ScoreError> {
        // Not the learner's own chance: measuring changes nothing.
        let seed = self.config.train.seed ^ u64::from(self.num_releases);
        let Some(live) = &self.live else {
            return Ok(None);
        };
        let num_items = live.ready.scorer.num_items();
        let sample = self.sample(preprocessor, num_items, seed);
        if sample.queries.is_empty() {
            return Ok(None);
        }
        let before = mean_loss(&live.ready.scorer, &sample, num_items).await?;
        let after = mean_loss(&release.scorer, &sample, num_items).await?;
        Ok(before.zip(after).map(|(before, after)| after - before))
    }

    fn sample(&self, preprocessor: &Preprocessor, num_items: usize, seed: u64) -> Sample {
        let timelines = preprocessor.timelines();
        let recent = preprocessor.recent_users(usize::MAX);
        let mut users: Vec<u32> =
            (0..timelines.len() as u32) // fits: users are counted in u32
                .filter(|user| recent.binary_search(&UserIdx(*user)).is_err())
                .collect();
        let (users, _) = users.partial_shuffle(&mut StdRng::seed_from_u64(seed), USERS_MAX);
        let mut sample = Sample {
            sequences: Vec::new(),
            queries: Vec::new(),
            targets: Vec::new(),
        };
        for user in users {
            let timeline = &timelines[*user as usize];
            let last = timeline.iter().rposition(|example| {
                example.target_weight > 0.0 && (example.item_idx as usize) < num_items
            });
            let Some(window) = last.and_then(|last| self.window_until(timeline, last + 1)) else {
                continue;
            };
            let mut sequence = window.sequence();
            let is_known = |item_idx: u32| (item_idx as usize) < num_items;
            sequence.tokens.retain(|token| is_known(token.item_idx));
            sample.queries.push(Query {
                sequence_idx: sample.sequences.len(),
                num_known: sequence.tokens.len(),
                now_millis: sequence.now_millis,
            });
            let target = window.examples.last().map(|example| example.item_idx);
            sample.targets.extend(target);
            sample.sequences.push(sequence);
        }
        sample
    }
}

/// Mean loss among the first `num_items` items, which both versions hold; a few users at a time, since every
/// one has a score per item.
async fn mean_loss(
    scorer: &Scorer,
    sample: &Sample,
    num_items: usize,
) -> Result<Option<f32>, ScoreError> {
    let mut losses = Vec::with_capacity(sample.targets.len());
    for first in (0..sample.targets.len()).step_by(USERS_PER_PASS) {
        let end = (first + USERS_PER_PASS).min(sample.targets.len());
        let queries: Vec<Query> = sample.queries[first..end]
            .iter()
            .map(|query| Query {
                sequence_idx: query.sequence_idx - first,
                ..*query
            })
            .collect();
        let sequences = &sample.sequences[first..end];
        let scores = scorer.score(sequences, &queries).await?;
        let rows = scores.chunks_exact(scorer.num_items());
        for (row, target) in rows.zip(&sample.targets[first..end]) {
            losses.extend(mean_log_loss(
                &row[..num_items],
                num_items,
                num_items,
                &[*target],
            ));
        }
    }
    Ok((!losses.is_empty()).then(|| losses.iter().sum::<f32>() / losses.len() as f32)) // counts fit f32
}
