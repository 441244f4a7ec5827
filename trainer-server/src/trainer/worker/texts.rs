//! The text encoder of the trainer thread: opened as the published version has it, taught between releases, saved.

use std::sync::{Arc, PoisonError};

use burn::tensor::Device;
use shared_model::text::AnyTextEncoder;

use super::{TrainerError, Worker};
use crate::checkpoint::text as files;
use crate::config::Config;
use crate::device::ChosenDevice;
use crate::learner::{LearnError, ReleaseTraining};
use crate::text_source::{self, CachedTextEncoder, EmbeddingCache};

/// The configured encoder behind its cache, as it was when `published` came to be; without the cache a restart
/// only takes longer.
pub(super) fn open_encoder(
    config: &Config,
    chosen: &ChosenDevice,
    published: Option<u32>,
) -> Result<CachedTextEncoder, TrainerError> {
    let cache = match EmbeddingCache::open(&config.server.data_dir) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!(%error, "texts are embedded again at every start");
            None
        }
    };
    encoder_of(config, &chosen.device, published, cache)
}

/// The configured encoder as it was when `published` came to be. Where a published generation cannot be had, the encoder
/// is as loaded, and whoever needs that generation says so.
///
/// # Errors
/// There is no such encoder, or its files are damaged or another's.
pub(crate) fn encoder_of(
    config: &Config,
    device: &Device,
    published: Option<u32>,
    cache: Option<EmbeddingCache>,
) -> Result<CachedTextEncoder, TrainerError> {
    let encoder = text_source::from_config(config, device)?;
    let encoder = CachedTextEncoder::new(encoder, cache);
    let (Some(generation), Some(bert)) = (published, encoder.as_bert()) else {
        return Ok(encoder);
    };
    if encoder.generation() == generation {
        return Ok(encoder);
    }
    let (data_dir, sizes) = (&config.server.data_dir, bert.encoder().config());
    let Some(saved) = files::load_published(data_dir, generation, sizes)? else {
        return Ok(encoder);
    };
    if saved.base != bert.base_fingerprint() {
        return Err(TrainerError::TextBase {
            generation,
            expected: saved.base.to_hex(),
            actual: bert.base_fingerprint().to_hex(),
        });
    }
    let changed = encoder.changed_by(saved.tuner.change().clone());
    let changed = changed.map_err(LearnError::from)?;
    tracing::info!("the text encoder is what it had learned by generation {generation:08x}");
    Ok(changed)
}

pub(super) fn encoder_name(encoder: &CachedTextEncoder) -> &'static str {
    match encoder.encoder() {
        AnyTextEncoder::Bert(_) => "bert",
        AnyTextEncoder::Small(_) => "small",
    }
}

impl Worker {
    /// A round begins after every release, refused ones too.
    pub(super) fn start_text_round(&mut self) {
        let serving = Arc::clone(&self.serving);
        let preprocessor = serving
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.learner.start_text_round(&preprocessor);
        self.show_texts();
    }

    fn show_texts(&self) {
        let report = self.learner.text_tuning().cloned();
        self.serving.update(|status| status.text_tuning = report);
    }

    /// A little of what the text encoder learns between releases; whether anything was done.
    pub(super) fn text_slice(&mut self) -> Result<bool, TrainerError> {
        if self.learner.text_tuning().is_none() {
            return Ok(false);
        }
        let serving = Arc::clone(&self.serving);
        let preprocessor = serving
            .preprocessor
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let was_busy = self.learner.text_slice(&preprocessor)?;
        if was_busy {
            self.show_texts();
        }
        Ok(was_busy)
    }

    /// Writes the change behind a generation before its manifest: no restart can do without it.
    pub(super) fn save_carried_texts(&self, release: &ReleaseTraining) -> Result<(), TrainerError> {
        if let Some(texts) = self.learner.carried_texts(release) {
            files::save_published(&self.config.server.data_dir, &texts)?;
        }
        Ok(())
    }

    /// Removes changes that no version to restart from needs: all but the live one and `previous`, which a
    /// damaged newest version would fall back to.
    /// What cannot be removed is in nobody's way.
    pub(super) fn forget_old_texts(&self, previous: u32) {
        let live = self.learner.encoder_generation();
        let data_dir = &self.config.server.data_dir;
        if live != previous
            && let Err(error) = files::prune_published(data_dir, &[previous, live])
        {
            tracing::warn!(%error, "an old change of the text encoder stays on disk");
        }
    }

    pub(super) fn save_text_tuner(&self) -> Result<(), TrainerError> {
        if let Some(texts) = self.learner.text_checkpoint() {
            files::save_tuner(&self.config.server.data_dir, &texts)?;
        }
        Ok(())
    }

    /// What the encoder had learned beyond the live generation; without it the next round begins there.
    pub(super) fn resume_texts(&mut self) {
        let Some(sizes) = self.learner.learning_encoder() else {
            return;
        };
        let is_resumed = match files::load_tuner(&self.config.server.data_dir, sizes) {
            Ok(saved) => saved.is_some_and(|saved| self.learner.resume_texts(saved)),
            Err(error) => {
                tracing::warn!(%error, "the learning of the text encoder is lost since the live generation");
                false
            }
        };
        if !is_resumed {
            tracing::info!("the text encoder learns from the live generation on");
        }
    }
}
