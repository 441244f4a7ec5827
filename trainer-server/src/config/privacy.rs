//! `[privacy]`: training with noise that hides any one client.

use serde::{Deserialize, Serialize};

use crate::privacy::Mechanism;

/// `[privacy]`; `docs/privacy.md` says what is guaranteed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyConfig {
    pub enabled: bool,
    pub epsilon_max: f64,
    pub delta: f64,
    pub noise_multiplier: f64,
    pub clip_norm: f64,
    pub sampling_rate: f64,
    pub clients_per_step: f64,
    pub steps: u32,
    pub interval_secs: u64,
    pub num_negatives: usize,
    pub learning_rate: f32,
    pub row_learning_rate: f32,
    pub bias_learning_rate: f32,
}

impl PrivacyConfig {
    /// How one step hides a client.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        Mechanism {
            noise_multiplier: self.noise_multiplier,
            sampling_rate: self.sampling_rate,
        }
    }
}
