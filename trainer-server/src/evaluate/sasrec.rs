//! The baseline `sasrec`: Kang & McAuley 2018, "Self-attentive sequential recommendation", 2 layers, width 64,
//! length 50, cross-entropy, items known by their ids alone.
//!
//! It is trained with the project's own full steps, on a spec without text, without time gaps (all tokens lie
//! at one moment) and without an item prior (its weights stay zero). The first part is learned by a warm fit,
//! the stream by one pass: every chunk is ranked, then learned by one full step over its events.
//! The softmax is over the catalogue up to 1,024 items, beyond over as many uniform negatives with the logQ
//! correction, as in the learner, which keeps it to minutes.
//! Weights are f32 throughout; nothing is compressed.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Device;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::state::{CodeState, ItemEntry};
use shared_model::edge::engine::ReadyVersion;
use shared_model::event::EventKind;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::scorer::{FastWeights, Padding};
use shared_model::spec::ModelSpec;

use crate::baselines::ranked::Ranked;
use crate::baselines::timelines::{Query, Seen, Timelines};
use crate::config::Schedule;
use crate::dataset::Dataset;
use crate::learner::LearnError;
use crate::replay::ReplayError;
use crate::replay::scoring::{ItemRows, RankModel, score_chunk};
use crate::replay::walk::FrozenVersion;
use crate::train::augment::Augmentation;
use crate::train::contrast::ContrastConfig;
use crate::train::count_history::CountHistory;
use crate::train::full_optimizer::FullOptimizer;
use crate::train::full_step::{FullStepConfig, full_step};
use crate::train::init::init_parameters;
use crate::train::warm_fit::{WarmFitConfig, warm_fit};
use crate::train::windows::{Example, Window, cut};

/// Passes over the first part.
const NUM_EPOCHS: u32 = 15;
/// Steps over which the step size rises.
const NUM_WARMUP_STEPS: u32 = 50;
/// Windows in one step.
const BATCH_SIZE: usize = 128;
/// Standard deviation of the first item rows; without text, zero rows would have no direction.
const ROW_STD: f32 = 0.02;
/// A step of the warm fit.
#[must_use]
pub fn step() -> FullStepConfig {
    FullStepConfig {
        learning_rate: 0.002,
        row_learning_rate: 0.002,
        bias_learning_rate: 0.002,
        weight_decay: 0.01,
        dropout: 0.2,
        num_negatives: 1024,
        gradient_norm_max: 5.0,
        ..FullStepConfig::still()
    }
}

/// Of the pass over the stream.
const ONLINE_LEARNING_RATE: f32 = 0.0005;

/// Sizes: no text, no features; half-lives are needed by the spec and never used.
#[must_use]
pub fn spec() -> ModelSpec {
    ModelSpec {
        embedding_dim: 64,
        text_dim: 0,
        feature_dim: 0,
        history_len: 50,
        num_layers: 2,
        num_heads: 2,
        ff_dim: 64,
        half_lives_secs: vec![86_400],
        num_neighbours: 0,
        adapter_dim: 0,
        has_taste_weight: false,
        ..ModelSpec::default()
    }
}

/// The model while it learns.
pub struct SasRec {
    parameters: ParameterSet,
    optimizer: FullOptimizer,
    version: FrozenVersion,
    /// Empty: this baseline counts nothing.
    history: CountHistory,
    rng: StdRng,
    device: Device,
}

impl SasRec {
    /// Learns the first `split` events of the dataset; `progress` counts steps.
    ///
    /// # Errors
    /// Training gave up.
    pub fn fit(
        dataset: &Dataset,
        split: usize,
        seed: u64,
        progress: &ProgressBar,
    ) -> Result<Self, ReplayError> {
        let device = Device::flex();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut parameters = init_parameters(&spec(), dataset.items.len(), seed);
        for value in parameters.tensor_mut("item.id_rows") {
            // Uniform with the deviation wanted: only the direction of a row matters.
            *value = ROW_STD * 12_f32.sqrt() * (rng.random::<f32>() - 0.5);
        }
        let mut timelines: BTreeMap<u32, Vec<Example>> = BTreeMap::new();
        for event in &dataset.events[..split] {
            timelines
                .entry(event.user_idx)
                .or_default()
                .push(example(event.item_idx));
        }
        let history_len = spec().history_len as usize;
        let windows: Vec<Window> = timelines
            .values()
            .flat_map(|timeline| cut(timeline, history_len))
            .collect();
        let config = WarmFitConfig {
            step: step(),
            num_epochs: NUM_EPOCHS,
            batch_size: BATCH_SIZE,
            schedule: Schedule::Cosine,
            num_warmup_steps: NUM_WARMUP_STEPS,
            augmentation: Augmentation::default(),
            contrast: ContrastConfig {
                step: step(),
                num_epochs: 0,
                batch_size: BATCH_SIZE,
                temperature: 1.0,
                seed,
            },
            texts: Arc::default(),
            seed,
        };
        let autodiff = device.clone().autodiff();
        let none = std::iter::empty();
        let half_lives_secs = spec().half_lives_secs;
        let history = CountHistory::of(none, dataset.items.len(), &half_lives_secs, 0);
        warm_fit(
            &mut parameters,
            &windows,
            &history,
            &config,
            &autodiff,
            |step| {
                progress.set_length(step.num_steps_total as u64); // usize fits u64
                progress.set_position(step.num_steps as u64); // likewise
                true
            },
        )
        .map_err(LearnError::from)?;
        let state = empty_state(dataset);
        let ready = ReadyVersion::new(&state, &device, Padding::Longest);
        let rows = ItemRows::new(dataset, &ready);
        let mut model = Self {
            optimizer: FullOptimizer::new(&parameters),
            parameters,
            version: FrozenVersion { ready, state, rows },
            history,
            rng,
            device,
        };
        model.refresh();
        Ok(model)
    }

    /// Ranks `queries` in chunks, each with everything before it learned.
    ///
    /// # Errors
    /// Scoring failed. A refused step leaves its chunk unlearned.
    pub async fn walk(
        &mut self,
        queries: &[Query],
        timelines: &Timelines,
        chunk_len: usize,
        progress: &ProgressBar,
    ) -> Result<Vec<Ranked>, ReplayError> {
        let mut answers = Vec::with_capacity(queries.len());
        let timeless = timelines.without_times();
        for chunk in queries.chunks(chunk_len) {
            let model = RankModel {
                ready: &self.version.ready,
                state: &self.version.state,
                rows: &self.version.rows,
                kind: EventKind::Click,
            };
            let at_one_moment: Vec<Query> = chunk
                .iter()
                .map(|query| Query {
                    occurred_at: 0,
                    ..*query
                })
                .collect();
            answers.extend(score_chunk(model, &at_one_moment, &timeless).await?);
            self.learn(chunk, timelines);
            progress.inc(chunk.len() as u64); // usize fits u64
        }
        Ok(answers)
    }

    fn learn(&mut self, chunk: &[Query], timelines: &Timelines) {
        let windows = windows_of(chunk, timelines, spec().history_len as usize);
        let config = FullStepConfig {
            learning_rate: ONLINE_LEARNING_RATE,
            row_learning_rate: ONLINE_LEARNING_RATE,
            bias_learning_rate: ONLINE_LEARNING_RATE,
            ..step()
        };
        let autodiff = self.device.clone().autodiff();
        let (parameters, optimizer) = (&mut self.parameters, &mut self.optimizer);
        match full_step(
            parameters,
            optimizer,
            &windows,
            &self.history,
            &config,
            &autodiff,
            &mut self.rng,
        ) {
            Ok(_report) => self.refresh(),
            Err(error) => tracing::warn!(%error, "a step of the SASRec baseline was skipped"),
        }
    }

    /// Scores with the weights as they are now.
    fn refresh(&mut self) {
        let weights = FastWeights {
            id_rows: self.parameters.tensor("item.id_rows"),
            bias: self.parameters.tensor("item.bias"),
            prior: self.parameters.tensor("prior.weights"),
            neighbour_weight: 0.0,
            taste_weight: 1.0,
        };
        let scorer = &self.version.ready.scorer;
        self.version.ready.scorer = scorer
            .with_slow_weights(&self.parameters)
            .with_fast_weights(weights);
    }
}

/// One window per user of the chunk: the newest events, of which those of the chunk are learned.
fn windows_of(chunk: &[Query], timelines: &Timelines, history_len: usize) -> Vec<Window> {
    let mut known: BTreeMap<u32, (&Query, &Query)> = BTreeMap::new();
    for query in chunk {
        known
            .entry(query.user_idx)
            .and_modify(|(_, last)| *last = query)
            .or_insert((query, query));
    }
    let window = |(first, last): &(&Query, &Query)| {
        let events: &[Seen] = &timelines.of_user(last.user_idx)[..=last.num_known];
        let start = events.len().saturating_sub(history_len + 1);
        let examples = events[start..].iter().map(|seen| example(seen.item_idx));
        Window {
            examples: examples.collect(),
            first_target: first.num_known.saturating_sub(start),
        }
    };
    known.values().map(window).collect()
}

/// Every event is the same kind of step at the same moment.
fn example(item_idx: u32) -> Example {
    Example {
        item_idx,
        kind: EventKind::Click,
        occurred_at: 0,
        target_weight: 1.0,
        share: 1.0,
        click: None,
        rating: None,
    }
}

/// A state that holds the dataset's items in their order and nothing learned.
fn empty_state(dataset: &Dataset) -> CodeState {
    let mut state = CodeState::empty(spec());
    state.append_items(dataset.items.iter().map(|item| ItemEntry {
        item_id: item.item_id.clone(),
        available: true,
    }));
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetEvent;
    use shared_model::event::Item;
    use shared_model::ids::UserId;

    /// Every user walks through eight items in a circle, from a place of their own.
    fn circle(num_users: u32) -> Dataset {
        let item = |idx: u32| -> Item {
            let text = serde_json::json!({"item_id": format!("i{idx}"), "title": ""});
            serde_json::from_value(text).expect("an item")
        };
        let event = |step: u32, user_idx: u32| DatasetEvent {
            user_idx,
            item_idx: (user_idx + step) % 8,
            occurred_at: i64::from(step) * 1000,
            value: None,
        };
        let steps = (0..6).flat_map(|step| (0..num_users).map(move |user| (step, user)));
        Dataset {
            name: "circle".to_owned(),
            kind: EventKind::Click,
            items: (0..8).map(item).collect(),
            users: (0..num_users)
                .map(|idx| UserId::new(format!("u{idx}")).expect("an id"))
                .collect(),
            events: steps.map(|(step, user)| event(step, user)).collect(),
            tie_seed: 1,
        }
    }

    #[tokio::test]
    async fn it_learns_what_follows_what() {
        let dataset = circle(1024);
        let split = dataset.split_at(0.8);
        let mut model = SasRec::fit(&dataset, split, 1, &ProgressBar::hidden()).expect("fits");
        let mut timelines = Timelines::new(dataset.users.len());
        let queries: Vec<Query> = dataset
            .events
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        let stream = &queries[split..];
        let progress = ProgressBar::hidden();
        let answers = model
            .walk(stream, &timelines, 32, &progress)
            .await
            .expect("ranks");
        assert_eq!(answers.len(), stream.len());
        let num_first = answers.iter().filter(|one| one.rank == Some(1)).count();
        assert!(
            num_first * 10 > stream.len() * 8,
            "{num_first} of {} first",
            stream.len()
        );
    }

    #[test]
    fn a_window_learns_the_events_of_the_chunk_and_no_later_ones() {
        let dataset = circle(2);
        let mut timelines = Timelines::new(2);
        let queries: Vec<Query> = dataset
            .events
            .iter()
            .map(|event| timelines.push(event))
            .collect();
        let windows = windows_of(&queries[4..8], &timelines, 3);
        assert_eq!(windows.len(), 2);
        for (user_idx, window) in (0..).zip(&windows) {
            let items: Vec<u32> = window.examples.iter().map(|one| one.item_idx).collect();
            assert_eq!(items, (user_idx..user_idx + 4).collect::<Vec<_>>());
            assert_eq!(
                window.first_target, 2,
                "the third and fourth event are of the chunk"
            );
        }
    }
}
