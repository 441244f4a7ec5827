//! Learner: all that is learned, without IO, threads or a clock.
//!
//! Records in, candidate versions out. The trainer thread, `replay` tests and recovery drive it.
//! A batch goes through `ingest` → `learn` (score first, then train) → `candidate`; whoever publishes
//! the candidate calls `went_live`.

use std::sync::Arc;

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::model::neighbours::NEIGHBOUR_ITEMS_MAX;
use shared_model::model::parameters::ParameterSet;
use shared_model::model::scorer::{OnDevice, Padding, Scorer};
use shared_model::spec::TensorGroup;
use shared_model::text::TextError;

use crate::compress::{Counted, DirtyRows, ItemView};
use crate::config::Config;
use crate::cross_encoder::CrossScorer;
use crate::event_log::LogRecord;
use crate::preprocess::{Batch, Preprocessor};
use crate::text_source::CachedTextEncoder;
use crate::train::TrainError;
use crate::train::counts::DecayedCounts;
use crate::train::fast_step::{FastOptimizer, ScoredEvents, fast_step};
use crate::train::full_step::read;
use crate::train::init::init_parameters;
use crate::train::neighbour_counts::NeighbourCounts;

mod asked;
mod candidate;
mod ensemble;
mod forgetting;
mod gating;
mod private;
mod pseudo;
mod refit;
mod release;
mod restore;
mod step_config;
mod text_tuning;
mod trial;
mod uncounted;
mod warm;
mod watch;

use asked::{Asked, popularity_hit_rate, prequential};
use ensemble::EarlierVersions;
use gating::{EarlierEvents, Questions};
use text_tuning::TextTuning;
use uncounted::Uncounted;
use watch::Watch;

pub use private::PrivateRound;
pub use refit::RefitExtent;
pub use release::ReleaseTraining;
pub use restore::{RestoreError, with_items_of, with_weights_of};
pub use text_tuning::TextTuningReport;
pub use watch::WatchFigures;

/// Why nothing could be learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A step was refused.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Scoring with the live version failed.
    #[error(transparent)]
    Score(#[from] shared_model::model::scorer::ScoreError),
    /// Item texts could not be embedded.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// The version that pages rank with, ready to score.
#[derive(Debug, Clone)]
pub struct LiveModel {
    /// Its codes.
    pub state: Arc<CodeState>,
    /// Its scorer and item index.
    pub ready: ReadyVersion,
}

/// What a batch did; `None` figures where it held no next-item target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LearnReport {
    /// Events learned from.
    pub num_learned: usize,
    /// Mean log loss of the live version on them, before learning.
    pub log_loss: Option<f32>,
    /// Share of them that the live version had in its top 10.
    pub hit_rate_at_10: Option<f32>,
    /// Share of them that were among the 10 most popular items, by counts of the middle half-life.
    pub popularity_hit_rate_at_10: Option<f32>,
    /// Why the step was skipped, where it was.
    pub skipped: Option<String>,
}

/// What the last batch left for the gate.
#[derive(Debug, Clone, Default)]
struct LastBatch {
    questions: Questions,
    /// To take the step back.
    undo: Option<Undo>,
}

/// What a fast step moves, as it was before it.
#[derive(Debug, Clone)]
struct Undo {
    weights: Vec<(String, Vec<f32>)>,
    optimizer: FastOptimizer,
}

/// All that is learned.
pub struct Learner {
    config: Arc<Config>,
    /// Without autodiff.
    device: Device,
    /// Of the generation that is live.
    encoder: CachedTextEncoder,
    /// Teaches releases, where the configuration names one.
    cross_scorer: Option<CrossScorer>,
    /// Teach releases together with the live one.
    earlier_versions: EarlierVersions,
    /// Present where the encoder learns.
    text_tuning: Option<TextTuning>,
    parameters: ParameterSet,
    counts: DecayedCounts,
    neighbours: NeighbourCounts,
    /// Not in `neighbours` yet.
    uncounted: Uncounted,
    optimizer: FastOptimizer,
    dirty: DirtyRows,
    /// What will be left of `dirty` once the last candidate is live.
    dirty_after: DirtyRows,
    items: Vec<ItemView>,
    live: Option<LiveModel>,
    /// Content vectors of the live slow weights, on the host.
    content: Vec<f32>,
    last: LastBatch,
    earlier: EarlierEvents,
    watch: Option<Watch>,
    rng: StdRng,
    /// Releases started, to know when a refit is due.
    num_releases: u32,
}

impl Learner {
    /// Nothing learned yet.
    #[must_use]
    pub fn new(config: Arc<Config>, device: Device, encoder: CachedTextEncoder) -> Self {
        let text_dim = encoder.dim() as u32; // fits: encoders are at most a few thousand wide
        let spec = config.model.spec(text_dim);
        let parameters = init_parameters(&spec, 0, config.train.seed);
        let counts = DecayedCounts::new(spec.half_lives_secs.clone(), 0);
        let optimizer = FastOptimizer::default();
        let rng = StdRng::seed_from_u64(config.train.seed);
        Self {
            text_tuning: TextTuning::new(&config, &encoder),
            config,
            device,
            encoder,
            cross_scorer: None,
            earlier_versions: EarlierVersions::default(),
            parameters,
            counts,
            neighbours: NeighbourCounts::default(),
            uncounted: Uncounted::default(),
            optimizer,
            dirty: DirtyRows::default(),
            dirty_after: DirtyRows::default(),
            items: Vec::new(),
            live: None,
            content: Vec::new(),
            last: LastBatch::default(),
            earlier: EarlierEvents::default(),
            watch: None,
            rng,
            num_releases: 0,
        }
    }

    /// Lets a CrossEncoder teach releases by `release.distillation`.
    #[must_use]
    pub fn taught_by(mut self, scorer: Option<CrossScorer>) -> Self {
        self.cross_scorer = scorer;
        self
    }

    /// The settings it learns by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The version that pages rank with.
    #[must_use]
    pub fn live(&self) -> Option<&LiveModel> {
        self.live.as_ref()
    }

    /// Names the text encoder in a state; see [`CachedTextEncoder::generation`].
    #[must_use]
    pub fn encoder_generation(&self) -> u32 {
        self.encoder.generation()
    }

    /// Trained weights.
    #[must_use]
    pub fn parameters(&self) -> &ParameterSet {
        &self.parameters
    }

    /// Takes the weights of a checkpoint as they are, before anything is live. `None` where a size differs.
    pub fn load_weights(&mut self, saved: &crate::checkpoint::Checkpoint) -> Option<()> {
        for (shape, values) in self
            .parameters
            .shapes()
            .iter()
            .zip(&mut self.parameters.tensors)
        {
            let Some(saved) = saved.tensors.get(&shape.name) else {
                continue;
            };
            if saved.len() != values.len() {
                return None;
            }
            values.clone_from(saved);
        }
        Some(())
    }

    /// Optimizer state of the fast steps.
    #[must_use]
    pub fn optimizer(&self) -> &FastOptimizer {
        &self.optimizer
    }

    /// Takes in records: new items get rows and texts, counts move; nothing is trained.
    ///
    /// # Errors
    /// The texts could not be embedded.
    pub fn ingest(
        &mut self,
        preprocessor: &mut Preprocessor,
        records: &[LogRecord],
    ) -> Result<Batch, LearnError> {
        let batch = self.ingest_but_neighbours(preprocessor, records)?;
        if self.counts_neighbours() && !self.is_private() {
            for (user, example) in &batch.examples {
                if example.target_weight > 0.0 {
                    self.neighbours.add(user.0, example.item_idx);
                }
            }
        }
        Ok(batch)
    }

    /// As [`Self::ingest`], with the counts of neighbours left for [`Self::count_passed_over`]: under overload.
    ///
    /// # Errors
    /// As [`Self::ingest`].
    pub fn ingest_skipped(
        &mut self,
        preprocessor: &mut Preprocessor,
        records: &[LogRecord],
    ) -> Result<Batch, LearnError> {
        let batch = self.ingest_but_neighbours(preprocessor, records)?;
        self.uncounted.add(&batch);
        Ok(batch)
    }

    fn ingest_but_neighbours(
        &mut self,
        preprocessor: &mut Preprocessor,
        records: &[LogRecord],
    ) -> Result<Batch, LearnError> {
        let batch = preprocessor.ingest(records);
        self.take_items(preprocessor, &batch.changed_items)?;
        if self.is_private() {
            return Ok(batch); // counts and their landmark go out as they are
        }
        if self.counts.landmark_millis == 0 {
            // Nothing is counted yet, so the landmark is free: the first event's time keeps the codes small.
            self.counts.landmark_millis = batch
                .examples
                .first()
                .map_or(0, |(_, example)| example.occurred_at);
        }
        for user in &batch.erased_users {
            self.neighbours.forget(user.0);
        }
        self.uncounted.forget(&batch.erased_users);
        for (_, example) in &batch.examples {
            if example.target_weight > 0.0 {
                let weight = example.share;
                self.counts
                    .add(example.item_idx, example.occurred_at, weight);
                self.dirty.counted.insert(example.item_idx);
            }
        }
        Ok(batch)
    }

    /// Scores the batch with the live version, and with a release that is to be tried, then learns from it.
    ///
    /// # Errors
    /// Scoring failed. A refused training step is no error: it is in the report.
    pub async fn learn(
        &mut self,
        preprocessor: &Preprocessor,
        batch: &Batch,
        release: Option<&mut ReleaseTraining>,
    ) -> Result<LearnReport, LearnError> {
        self.last.undo = None;
        let Some(live) = &self.live else {
            return Ok(LearnReport::default());
        };
        let num_items = live.ready.scorer.num_items();
        let asked = Asked::of(
            preprocessor,
            batch,
            self.parameters.spec.history_len as usize,
            num_items,
        );
        if asked.queries.is_empty() {
            return Ok(LearnReport::default());
        }
        let scorer = &live.ready.scorer;
        let scores = scorer.score(&asked.sequences, &asked.queries).await?;
        if let Some(release) = release.filter(|release| release.is_complete()) {
            self.try_release(release, &asked, &scores).await?;
        }
        let device = on_device(scorer);
        let users = device.user_vectors(&asked.sequences, &asked.queries);
        let step = self.optimizer.num_steps;
        let tastes = if self.parameters.spec.has_taste_weight {
            let vectors = device.item_vectors();
            read(users.clone().matmul(vectors.transpose()), step)?
        } else {
            Vec::new()
        };
        let users = read(users, step)?;
        let mut report = prequential(&scores, num_items, &asked.targets);
        let events = asked.scored(users, tastes, scores, scorer);
        report.popularity_hit_rate_at_10 = Some(popularity_hit_rate(&events));
        if self.is_private() {
            report.num_learned = 0; // by private rounds alone; what was said of the events is for operators
            return Ok(report);
        }
        if let Err(error) = self.fast_step(&events) {
            tracing::warn!(%error, "a fast step was skipped");
            report.skipped = Some(error.to_string());
        }
        self.watch(&asked, &events.scores, num_items).await;
        self.remember(asked, &events.scores, num_items);
        Ok(report)
    }

    /// Whether the spec lists neighbours and the catalogue is small enough for their codes.
    fn counts_neighbours(&self) -> bool {
        let num_items = self.parameters.num_items;
        self.parameters.spec.num_neighbours > 0 && num_items <= NEIGHBOUR_ITEMS_MAX
    }

    fn counted(&self) -> Counted<'_> {
        Counted {
            counts: &self.counts,
            neighbours: &self.neighbours,
        }
    }

    /// Makes a candidate ready to score, reusing what it shares with the live version.
    #[must_use]
    pub fn ready(&self, candidate: &CodeState) -> ReadyVersion {
        match &self.live {
            Some(live) => live.ready.updated(&live.state, candidate),
            None => ReadyVersion::new(candidate, &self.device, padding_of(&self.device)),
        }
    }

    /// A candidate was published and is what pages rank with from now on.
    pub fn went_live(&mut self, state: Arc<CodeState>, ready: ReadyVersion) {
        let has_new_content = match &self.live {
            Some(live) => {
                live.state.items.len() != state.items.len() || !same_content(&live.state, &state)
            }
            None => true,
        };
        if has_new_content {
            self.content = content_of(&ready.scorer);
        }
        self.live = Some(LiveModel { state, ready });
        self.dirty = std::mem::take(&mut self.dirty_after);
    }

    fn fast_step(&mut self, events: &ScoredEvents) -> Result<(), TrainError> {
        let shapes = self.parameters.shapes();
        let fast = shapes.into_iter().zip(&self.parameters.tensors);
        let weights = fast
            .filter(|(shape, _)| shape.group == TensorGroup::Fast && shape.is_trained())
            .map(|(shape, values)| (shape.name, values.clone()))
            .collect();
        let undo = Undo {
            weights,
            optimizer: self.optimizer.clone(),
        };
        let config = step_config::fast_step(&self.config);
        let device = self.device.clone().autodiff();
        let (parameters, optimizer) = (&mut self.parameters, &mut self.optimizer);
        let report = fast_step(
            parameters,
            optimizer,
            events,
            &self.content,
            &config,
            &device,
            &mut self.rng,
        )?;
        self.last.undo = Some(undo);
        self.dirty.learned.extend(report.rows);
        Ok(())
    }

    fn take_items(
        &mut self,
        preprocessor: &Preprocessor,
        changed: &[u32],
    ) -> Result<(), LearnError> {
        let known = preprocessor.items();
        let num_new = known.len() - self.parameters.num_items;
        self.parameters.grow_items(num_new);
        self.counts.grow(known.len());
        if self.counts_neighbours() {
            self.neighbours.grow(known.len());
        } else {
            self.neighbours = NeighbourCounts::default(); // nothing lists what it counts
        }
        self.items.truncate(0);
        self.items.extend(known.iter().map(|item| ItemView {
            item_id: item.item_id.clone(),
            available: item.available,
        }));
        if changed.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = changed
            .iter()
            .map(|idx| known[*idx as usize].text.clone())
            .collect();
        if let Some(tuning) = &mut self.text_tuning {
            tuning.take_items(changed, &texts, known.len() - num_new)?;
        }
        let embedded = self.encoder.embed(&texts)?;
        let (text_dim, feature_dim) = (
            self.encoder.dim(),
            self.parameters.spec.feature_dim as usize,
        );
        for (item_idx, text_row) in changed.iter().zip(embedded.chunks_exact(text_dim)) {
            let row_idx = *item_idx as usize;
            self.parameters.tensor_mut("item.text")[row_idx * text_dim..(row_idx + 1) * text_dim]
                .copy_from_slice(text_row);
            let features = &known[row_idx].features;
            if features.len() == feature_dim {
                self.parameters.tensor_mut("item.features")
                    [row_idx * feature_dim..(row_idx + 1) * feature_dim]
                    .copy_from_slice(features);
            }
            self.dirty.content.insert(*item_idx);
        }
        Ok(())
    }
}

/// GPUs want one shape, CPUs the shortest.
#[must_use]
pub fn padding_of(device: &Device) -> Padding {
    #[cfg(feature = "wgpu")]
    if *device != Device::flex() {
        return Padding::Full;
    }
    debug_assert!(*device == Device::flex());
    Padding::Longest
}

fn on_device(scorer: &Scorer) -> &OnDevice {
    scorer.device().expect("trainers score on a device")
}

fn content_of(scorer: &Scorer) -> Vec<f32> {
    let Some(content) = on_device(scorer).content() else {
        return Vec::new();
    };
    content
        .into_data()
        .try_into_vec::<f32>()
        .expect("item vectors are f32")
}

/// Whether content vectors are the same: those of texts and features, projected by slow weights.
fn same_content(base: &CodeState, target: &CodeState) -> bool {
    let shapes = base.spec.tensor_shapes(0);
    let pairs = base.tensors.iter().zip(&target.tensors);
    let is_part = |group| matches!(group, TensorGroup::Slow | TensorGroup::Content);
    let mut parts = shapes
        .iter()
        .zip(pairs)
        .filter(|(shape, _)| is_part(shape.group));
    parts.all(|(_, (base, target))| base == target)
}

#[cfg(test)]
mod tests;
