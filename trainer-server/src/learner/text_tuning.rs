//! Text tuning: the text encoder learns in rounds between releases, and the catalogue follows once it has moved.
//!
//! ```text
//! after a release ─► round of steps ─► a sample has moved ──< move_min──► nothing; the next round goes on
//!                                                          └─≥ move_min──► all texts embedded anew, beside the live
//!                                                                          rows ─► the next release carries them
//! ```
//! Everything happens in slices of a few texts. Until a release with the new rows is live, the encoder, the rows
//! and the generation are those of before; where the gate refuses it, or its trial
//! goes against it, what was learned is taken back with it.
//! Here too: items that come while rows are embedded. Not here: the step (`train::text_step`), files
//! (`checkpoint::text`).

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use shared_model::model::parameters::ParameterSet;
use shared_model::text::{BertConfig, TextError};

use super::release::ReleaseTraining;
use super::{LearnError, Learner, step_config};
use crate::checkpoint::text::TextCheckpoint;
use crate::config::Config;
use crate::preprocess::{KnownItem, Preprocessor};
use crate::text_source::CachedTextEncoder;
use crate::train::count_history::CountHistory;
use crate::train::text_step::{TextStepInputs, TextTuner};

/// Targets of one step: small, since events wait while it runs.
const TARGETS_PER_STEP: usize = 8;
/// Texts embedded in one slice, likewise.
const TEXTS_PER_SLICE: usize = 64;
/// Texts by which it is measured how far the encoder has moved.
const SAMPLE_TEXTS: usize = 64;
/// Tells the draw of the first factors from other uses of the seed.
const SEED_OF_FACTORS: u64 = 0x7465_7874;

/// The encoder that learns, and what comes of it.
pub(super) struct TextTuning {
    tuner: TextTuner,
    round: Option<Round>,
    fresh: Option<FreshTexts>,
    report: TextTuningReport,
}

/// Where text tuning stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TextTuningReport {
    /// Steps since this start.
    pub num_steps: u64,
    /// Of these, refused.
    pub num_refused: u64,
    /// Loss of the newest step.
    pub loss: Option<f32>,
    /// Mean of 1 − cosine between the rows that are live and those of the newest round.
    pub moved: Option<f32>,
    /// Share of the catalogue that is embedded anew, while that is going on or waits for a release.
    pub embedded: Option<f32>,
}

struct Round {
    steps_left: u32,
    /// Counts of all times up to its start.
    history: CountHistory,
}

/// Rows of a generation that is not live yet.
struct FreshTexts {
    encoder: CachedTextEncoder,
    /// As it was when the rows were begun.
    tuner: TextTuner,
    /// Of the first items, `[num_done, text_dim]`.
    rows: Vec<f32>,
}

impl TextTuning {
    /// Goes on from the change that `encoder` has, else begins one; `None` where nothing is to learn.
    pub(super) fn new(config: &Config, encoder: &CachedTextEncoder) -> Option<Self> {
        if config.text_tuning.steps == 0 {
            return None;
        }
        Some(Self {
            tuner: tuner_of(config, encoder)?,
            round: None,
            fresh: None,
            report: TextTuningReport::default(),
        })
    }

    /// Embeds what is new or changed with the generation that is not live yet, too.
    ///
    /// `changed` is ascending and names every item from `num_known` on.
    pub(super) fn take_items(
        &mut self,
        changed: &[u32],
        texts: &[String],
        num_known: usize,
    ) -> Result<(), TextError> {
        let Some(fresh) = &mut self.fresh else {
            return Ok(());
        };
        let num_done = fresh.num_done();
        let is_complete = num_done == num_known;
        // Items behind are reached when their turn comes.
        let due: Vec<(u32, &String)> = changed
            .iter()
            .copied()
            .zip(texts)
            .filter(|(item_idx, _)| is_complete || (*item_idx as usize) < num_done)
            .collect();
        let texts: Vec<String> = due.iter().map(|(_, text)| (*text).clone()).collect();
        let dim = fresh.encoder.dim();
        let embedded = fresh.encoder.embed(&texts)?;
        for ((item_idx, _), row) in due.iter().zip(embedded.chunks_exact(dim)) {
            let first = *item_idx as usize * dim;
            match fresh.rows.get_mut(first..first + dim) {
                Some(known) => known.copy_from_slice(row),
                None => fresh.rows.extend_from_slice(row),
            }
        }
        Ok(())
    }
}

/// `None` for an encoder without weights.
fn tuner_of(config: &Config, encoder: &CachedTextEncoder) -> Option<TextTuner> {
    let bert = encoder.as_bert()?;
    if let Some(change) = bert.encoder().change() {
        return Some(TextTuner::from_change(change.clone()));
    }
    let mut rng = StdRng::seed_from_u64(config.train.seed ^ SEED_OF_FACTORS);
    let rank = config.text_tuning.rank as usize; // u32 fits
    Some(TextTuner::new(bert, rank, &mut rng).expect("the configuration bounds the rank"))
}

impl FreshTexts {
    fn num_done(&self) -> usize {
        self.rows.len() / self.encoder.dim()
    }

    /// Whether there was anything left to embed.
    fn embed_next(&mut self, items: &[KnownItem]) -> Result<bool, TextError> {
        let waiting = &items[self.num_done()..];
        let next = &waiting[..waiting.len().min(TEXTS_PER_SLICE)];
        let texts: Vec<String> = next.iter().map(|item| item.text.clone()).collect();
        self.rows.extend(self.encoder.embed(&texts)?);
        Ok(!texts.is_empty())
    }
}

impl Learner {
    /// Where text tuning stands; `None` where the encoder does not learn.
    #[must_use]
    pub fn text_tuning(&self) -> Option<&TextTuningReport> {
        self.text_tuning.as_ref().map(|tuning| &tuning.report)
    }

    /// Sizes of the encoder that learns; `None` where none does.
    #[must_use]
    pub fn learning_encoder(&self) -> Option<&BertConfig> {
        self.text_tuning.as_ref()?;
        Some(self.encoder.as_bert()?.encoder().config())
    }

    /// Begins a round of steps, where the encoder learns and no round and no rows of the one before are under way.
    pub fn start_text_round(&mut self, preprocessor: &Preprocessor) {
        let is_idle = |tuning: &TextTuning| tuning.round.is_none() && tuning.fresh.is_none();
        if !self.text_tuning.as_ref().is_some_and(is_idle) {
            return;
        }
        let round = Round {
            steps_left: self.config.text_tuning.steps,
            history: self.count_history(preprocessor),
        };
        if let Some(tuning) = &mut self.text_tuning {
            tuning.round = Some(round);
        }
    }

    /// One step, one measurement or a few texts; whether there was anything to do.
    ///
    /// # Errors
    /// Texts could not be embedded. A refused step is no error: it is in the report.
    pub fn text_slice(&mut self, preprocessor: &Preprocessor) -> Result<bool, LearnError> {
        let Some(mut tuning) = self.text_tuning.take() else {
            return Ok(false);
        };
        let done = self.slice_of(&mut tuning, preprocessor);
        let num_items = preprocessor.items().len().max(1) as f32; // a share, not a count
        let embedded = |fresh: &FreshTexts| fresh.num_done() as f32 / num_items;
        tuning.report.embedded = tuning.fresh.as_ref().map(embedded);
        self.text_tuning = Some(tuning);
        done
    }

    fn slice_of(
        &mut self,
        tuning: &mut TextTuning,
        preprocessor: &Preprocessor,
    ) -> Result<bool, LearnError> {
        if let Some(round) = &mut tuning.round {
            if round.steps_left > 0 {
                round.steps_left -= 1;
                self.text_step(tuning, preprocessor);
                return Ok(true);
            }
            tuning.round = None;
            self.measure(tuning, preprocessor)?;
            return Ok(true);
        }
        match &mut tuning.fresh {
            Some(fresh) => Ok(fresh.embed_next(preprocessor.items())?),
            None => Ok(false),
        }
    }

    fn text_step(&mut self, tuning: &mut TextTuning, preprocessor: &Preprocessor) {
        let mut windows = self.replay_windows(preprocessor, TARGETS_PER_STEP);
        for window in &mut windows {
            window.first_target = window.examples.len() - 1; // a window is never empty
        }
        let (Some(encoder), Some(round)) = (self.encoder.as_bert(), &tuning.round) else {
            return;
        };
        let items = preprocessor.items();
        let inputs = TextStepInputs {
            encoder,
            parameters: &self.parameters,
            history: &round.history,
            text_of: &|item_idx| items[item_idx as usize].text.clone(),
        };
        let config = step_config::text_step(&self.config);
        let stepped = tuning.tuner.step(inputs, &windows, &config, &mut self.rng);
        tuning.report.num_steps += 1;
        match stepped {
            Ok(report) if report.num_targets > 0 => tuning.report.loss = Some(report.loss),
            Ok(_nothing_to_predict) => {}
            Err(error) => {
                tuning.report.num_refused += 1;
                tracing::warn!(%error, "a step of the text encoder was skipped");
            }
        }
    }

    /// Compares a sample of the catalogue with its live rows, and begins to embed it all where it has moved enough.
    fn measure(
        &self,
        tuning: &mut TextTuning,
        preprocessor: &Preprocessor,
    ) -> Result<(), LearnError> {
        let encoder = self.encoder.changed_by(tuning.tuner.change().clone())?;
        let items = preprocessor.items();
        let stride = items.len().div_ceil(SAMPLE_TEXTS).max(1);
        let sample: Vec<usize> = (0..items.len()).step_by(stride).collect();
        let texts: Vec<String> = sample.iter().map(|idx| items[*idx].text.clone()).collect();
        // Not through the cache: most rounds are never published.
        let embedded = encoder.encoder().embed(&texts)?;
        let (dim, live) = (encoder.dim(), self.parameters.tensor("item.text"));
        let rows = sample.iter().zip(embedded.chunks_exact(dim));
        let distances: Vec<f32> = rows
            .map(|(idx, row)| 1.0 - cosine(row, &live[idx * dim..(idx + 1) * dim]))
            .collect();
        let moved = distances.iter().sum::<f32>() / distances.len().max(1) as f32; // at most 64
        tuning.report.moved = Some(moved);
        let move_min = self.config.text_tuning.move_min;
        if moved < move_min {
            tracing::info!(
                moved,
                move_min,
                "the text encoder has learned and stays near"
            );
            return Ok(());
        }
        let generation = encoder.generation();
        tracing::info!(
            moved,
            move_min,
            "the text encoder has moved; the catalogue is embedded again as generation {generation:08x}"
        );
        tuning.fresh = Some(FreshTexts {
            encoder,
            tuner: tuning.tuner.clone(),
            rows: Vec::new(),
        });
        Ok(())
    }

    /// Whether rows of a new generation are complete, so that the release that starts now carries them.
    pub(super) fn has_fresh_texts(&self) -> bool {
        let fresh = self.fresh_texts();
        fresh.is_some_and(|fresh| fresh.num_done() == self.parameters.num_items)
    }

    fn fresh_texts(&self) -> Option<&FreshTexts> {
        self.text_tuning
            .as_ref()
            .and_then(|tuning| tuning.fresh.as_ref())
    }

    /// The generation that a release carries, with its rows put into `parameters`; `None` where it carries none.
    pub(super) fn lay_fresh_texts(&self, parameters: &mut ParameterSet) -> Option<u32> {
        let fresh = self.fresh_texts()?;
        let known = parameters.tensor_mut("item.text");
        let len = known.len().min(fresh.rows.len()); // a refit's shadow may lack the newest items
        known[..len].copy_from_slice(&fresh.rows[..len]);
        Some(fresh.encoder.generation())
    }

    /// The gate refused a release with new rows: the encoder is what it was when the live rows were embedded.
    pub(super) fn take_back_texts(&mut self) {
        let tuner = tuner_of(&self.config, &self.encoder);
        let Some((tuning, tuner)) = self.text_tuning.as_mut().zip(tuner) else {
            return;
        };
        tuning.fresh = None;
        tuning.report.embedded = None;
        tuning.tuner = tuner;
    }

    /// A release with new rows is live: so are its encoder and its rows.
    pub(super) fn take_over_texts(&mut self) {
        let Some(tuning) = &mut self.text_tuning else {
            return;
        };
        let Some(fresh) = tuning.fresh.take() else {
            return;
        };
        tuning.report.embedded = None;
        self.encoder = fresh.encoder;
        let rows = self.parameters.tensor_mut("item.text");
        rows.copy_from_slice(&fresh.rows);
    }

    /// What must be on disk before `training` is published: the change behind the generation that it carries.
    #[must_use]
    pub fn carried_texts(&self, training: &ReleaseTraining) -> Option<TextCheckpoint> {
        let fresh = self.fresh_texts().filter(|_| training.carries_texts())?;
        Some(TextCheckpoint {
            base: fresh.encoder.as_bert()?.base_fingerprint(),
            generation: fresh.encoder.generation(),
            tuner: fresh.tuner.clone(),
        })
    }

    /// The change that learns, to go on with after a restart; `None` where the encoder does not learn.
    #[must_use]
    pub fn text_checkpoint(&self) -> Option<TextCheckpoint> {
        Some(TextCheckpoint {
            base: self.encoder.as_bert()?.base_fingerprint(),
            generation: self.encoder.generation(),
            tuner: self.text_tuning.as_ref()?.tuner.clone(),
        })
    }

    /// Goes on with a change that learned before a restart; whether it belongs to the live generation.
    pub fn resume_texts(&mut self, saved: TextCheckpoint) -> bool {
        let base = self.encoder.as_bert().map(|bert| bert.base_fingerprint());
        let generation = self.encoder.generation();
        let is_ours = base == Some(saved.base) && generation == saved.generation;
        let Some(tuning) = self.text_tuning.as_mut().filter(|_| is_ours) else {
            return false;
        };
        tuning.tuner = saved.tuner;
        true
    }
}

/// Of two rows; zeros are at distance 1 from everything but zeros.
fn cosine(left: &[f32], right: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (dot(left, left) * dot(right, right)).sqrt();
    if lengths == 0.0 {
        return f32::from(u8::from(left == right));
    }
    dot(left, right) / lengths
}
