//! From settings to what training steps take.

use std::sync::Arc;

use crate::config::{AdversarialChoice, Config, StrategyChoice};
use crate::train::adversarial::Adversarial;
use crate::train::augment::Augmentation;
use crate::train::contrast::ContrastConfig;
use crate::train::fast_step::FastStepConfig;
use crate::train::full_step::{Distillation, FullStepConfig};
use crate::train::private_step::PrivateStepConfig;
use crate::train::strategy::{Strategy, StrategyKind};
use crate::train::teacher::Teacher;
use crate::train::text_step::TextStepConfig;
use crate::train::warm_fit::WarmFitConfig;

/// Bound of the global gradient norm, as in most transformer recipes.
const GRADIENT_NORM_MAX: f32 = 5.0;
/// Weight of the click loss beside the next-item loss.
const CLICK_WEIGHT: f32 = 0.1;
/// Weight of the rating loss beside the next-item loss.
const RATING_WEIGHT: f32 = 0.05;

/// Negatives of a step of the text encoder: each is a text to be read, forward and back.
const TEXT_NEGATIVES: usize = 24;

/// What full steps of warm fit and release share; the learning rates are theirs.
fn full_step(config: &Config) -> FullStepConfig {
    let train = &config.train;
    FullStepConfig {
        id_dropout: f64::from(train.id_dropout),
        weight_decay: train.weight_decay,
        dropout: f64::from(train.dropout),
        num_negatives: train.num_negatives,
        gradient_norm_max: GRADIENT_NORM_MAX,
        click_weight: CLICK_WEIGHT,
        rating_weight: RATING_WEIGHT,
        adversarial: match train.adversarial {
            AdversarialChoice::None => Adversarial::None,
            AdversarialChoice::Fgm => Adversarial::Fgm {
                epsilon: train.adversarial_epsilon,
            },
            AdversarialChoice::Pgd => Adversarial::Pgd {
                epsilon: train.adversarial_epsilon,
                num_steps: train.adversarial_steps,
            },
        },
        num_parts: train.accumulation_steps as usize, // u32 fits
        ..FullStepConfig::still()
    }
}

/// A warm fit over the whole log.
pub(super) fn warm_fit(config: &Config) -> WarmFitConfig {
    let train = &config.train;
    WarmFitConfig {
        step: FullStepConfig {
            learning_rate: train.warm_learning_rate,
            row_learning_rate: train.warm_row_learning_rate,
            bias_learning_rate: train.warm_bias_learning_rate,
            prior_learning_rate: train.warm_prior_learning_rate,
            ..full_step(config)
        },
        num_epochs: train.warm_epochs,
        batch_size: train.warm_batch_size,
        schedule: train.warm_schedule,
        num_warmup_steps: train.warmup_steps,
        augmentation: augmentation(config),
        contrast: contrast(config),
        texts: Arc::default(),
        seed: train.seed,
    }
}

/// What comes before a warm fit. It moves the sequence encoder, what it reads, and nothing else.
fn contrast(config: &Config) -> ContrastConfig {
    let train = &config.train;
    ContrastConfig {
        step: FullStepConfig {
            learning_rate: train.warm_learning_rate,
            row_learning_rate: train.warm_row_learning_rate,
            ..full_step(config)
        },
        num_epochs: train.contrast_epochs,
        batch_size: train.warm_batch_size,
        temperature: train.contrast_temperature,
        seed: train.seed,
    }
}

/// A step of a release, near `teacher` where the configuration asks for it.
pub(super) fn release_step(config: &Config, teacher: Option<&Teacher>) -> FullStepConfig {
    FullStepConfig {
        learning_rate: config.release.learning_rate,
        distillation: teacher.map(|teacher| Distillation {
            teacher: teacher.clone(),
            weight: config.release.distillation,
        }),
        ..full_step(config)
    }
}

/// A fast step.
pub(super) fn fast_step(config: &Config) -> FastStepConfig {
    let train = &config.train;
    FastStepConfig {
        learning_rate: train.fast_learning_rate,
        bias_learning_rate: train.fast_bias_learning_rate,
        cold_boost: train.fast_cold_boost,
        shared_memory_events: train.shared_memory_events as f64, // exact below 2^53
        num_negatives: train.num_negatives,
    }
}

/// A step of a private round.
pub(super) fn private_step(config: &Config) -> PrivateStepConfig {
    let privacy = &config.privacy;
    PrivateStepConfig {
        step: FullStepConfig {
            learning_rate: privacy.learning_rate,
            row_learning_rate: privacy.row_learning_rate,
            bias_learning_rate: privacy.bias_learning_rate,
            num_negatives: privacy.num_negatives,
            num_parts: 1, // every client's gradient is computed by itself anyway
            ..full_step(config)
        },
        clip_norm: privacy.clip_norm,
        noise_multiplier: privacy.noise_multiplier,
        clients_per_step: privacy.clients_per_step,
    }
}

/// A step of the text encoder.
pub(super) fn text_step(config: &Config) -> TextStepConfig {
    TextStepConfig {
        learning_rate: config.text_tuning.learning_rate,
        num_negatives: TEXT_NEGATIVES,
        gradient_norm_max: GRADIENT_NORM_MAX,
    }
}

/// What is done to windows.
pub(super) fn augmentation(config: &Config) -> Augmentation {
    Augmentation {
        crop: config.train.augment_crop,
        mask: config.train.augment_mask,
        reorder: config.train.augment_reorder,
    }
}

/// What release steps move.
pub(super) fn strategy(config: &Config) -> Strategy {
    let release = &config.release;
    Strategy {
        kind: match release.strategy {
            StrategyChoice::Full => StrategyKind::Full,
            StrategyChoice::Lora => StrategyKind::Lora {
                rank: release.lora_rank as usize, // u32 fits
            },
            StrategyChoice::Adapter => StrategyKind::Adapter,
            StrategyChoice::Bitfit => StrategyKind::BitFit,
            StrategyChoice::Head => StrategyKind::Head,
            StrategyChoice::Tables => StrategyKind::Tables,
        },
        projection_rate: release.projection_rate,
        sequence_rate: release.sequence_rate,
        heads_rate: release.heads_rate,
    }
}
