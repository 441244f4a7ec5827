//! Configuration: what `default.toml` holds, as types.
//!
//! Layers, later ones win: `default.toml` (embedded), a preset, the operator's file, `FRESHET__SECTION__KEY`
//! variables, flags; see [`load`]. Not here: what the settings do.

mod access;
mod check;
mod error;
mod influence;
pub mod load;
mod preset;
mod privacy;
pub mod reload;
mod telemetry;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::{self, DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use shared_model::event::EventKind;
use shared_model::spec::ModelSpec;

pub use access::{AccessConfig, LimitsConfig, Network, Secret};
pub use error::ConfigError;
pub use influence::{InfluenceConfig, WithoutToken};
pub use preset::Preset;
pub use privacy::PrivacyConfig;
pub use telemetry::{LineFormat, TelemetryConfig};

/// The commented defaults, complete: every key is in it.
pub const DEFAULT_TOML: &str = include_str!("../../default.toml");

/// All settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listening and request limits.
    pub server: ServerConfig,
    /// Keys.
    pub access: AccessConfig,
    /// What one client may do.
    pub limits: LimitsConfig,
    /// The process log and traces.
    pub telemetry: TelemetryConfig,
    /// The event log.
    pub log: LogConfig,
    /// Event time.
    pub clock: ClockConfig,
    /// Sizes of the Ranker.
    pub model: ModelConfig,
    /// Learning.
    pub train: TrainConfig,
    /// Versions that move the slow group.
    pub release: ReleaseConfig,
    /// Learning of the text encoder.
    pub text_tuning: TextTuningConfig,
    /// Deltas, snapshots, manifests.
    pub publish: PublishConfig,
    /// What a version must pass.
    pub gate: GateConfig,
    /// How versions reach pages, and what is remembered of them.
    pub rollout: RolloutConfig,
    /// Rules over lists, and what the server proposes of them.
    pub moderation: ModerationConfig,
    /// How much of the disk versions may take.
    pub store: StoreConfig,
    /// From events to training targets.
    pub labels: LabelsConfig,
    /// How much one client may teach.
    pub influence: InfluenceConfig,
    /// Training with noise that hides any one client.
    pub privacy: PrivacyConfig,
    /// Raw files of purchases.
    pub import: ImportConfig,
}

/// `[server]`; units and reasons stand in `default.toml`, as for all sections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    #[serde(deserialize_with = "text")]
    pub bind: SocketAddr,
    #[serde(with = "optional")]
    pub admin_bind: Option<SocketAddr>,
    pub data_dir: PathBuf,
    pub body_bytes_max: usize,
    pub batch_events_max: usize,
    pub queue_batches_max: usize,
    pub connections_max: usize,
    pub backlog: u32,
    pub header_timeout_millis: u64,
    pub keep_alive_secs: u64,
    pub cors_origins: Vec<String>,
    #[serde(with = "optional")]
    pub static_dir: Option<PathBuf>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub id_memory_secs: u64,
    pub retention_days: u32,
    pub pseudonymous_ids: bool,
    pub commit_records_max: usize,
    pub cache_bytes: usize,
}

/// Whether windows follow the clock or the newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockMode {
    /// The clock of the server.
    Live,
    /// The newest event seen.
    EventTime,
}

/// `[clock]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockConfig {
    pub future_secs_max: u64,
    pub mode: ClockMode,
}

impl ClockConfig {
    /// How far in the future an event may lie, in milliseconds.
    #[must_use]
    pub fn future_millis_max(&self) -> i64 {
        i64::try_from(self.future_secs_max)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000)
    }
}

/// Which text encoder embeds the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextEncoderChoice {
    /// Pretrained where its files are found, else small.
    Auto,
    /// MiniLM; an error where its files are missing.
    Pretrained,
    /// Hashed words, nothing to download.
    Small,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub name: String,
    pub embedding_dim: u32,
    pub feature_dim: u32,
    pub num_layers: u32,
    pub num_heads: u32,
    pub ff_dim: u32,
    pub history_len: u32,
    pub half_lives_secs: Vec<u32>,
    pub num_neighbours: u32,
    pub taste_weight: bool,
    pub adapter_dim: u32,
    pub id_code_bits: u8,
    pub text_code_bits: u8,
    pub matrix_code_bits: u8,
    pub text_encoder: TextEncoderChoice,
    #[serde(with = "optional")]
    pub text_encoder_dir: Option<PathBuf>,
}

impl ModelConfig {
    /// The spec of a Ranker over texts embedded `text_dim` wide.
    #[must_use]
    pub fn spec(&self, text_dim: u32) -> ModelSpec {
        ModelSpec {
            embedding_dim: self.embedding_dim,
            text_dim,
            feature_dim: self.feature_dim,
            history_len: self.history_len,
            num_layers: self.num_layers,
            num_heads: self.num_heads,
            ff_dim: self.ff_dim,
            half_lives_secs: self.half_lives_secs.clone(),
            num_neighbours: self.num_neighbours,
            adapter_dim: self.adapter_dim,
            has_taste_weight: self.taste_weight,
            id_code_bits: self.id_code_bits,
            text_code_bits: self.text_code_bits,
            matrix_code_bits: self.matrix_code_bits,
        }
    }
}

/// Where training runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// Texts on a real GPU where one is found, the Ranker on the CPU.
    Auto,
    /// The CPU.
    Flex,
    /// Vulkan, Metal or DX12.
    Wgpu,
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub device: DeviceChoice,
    pub seed: u64,
    pub num_threads: usize,
    pub niceness: u8,
    pub fast_interval_millis: u64,
    pub fast_events_max: usize,
    pub fast_learning_rate: f32,
    pub fast_bias_learning_rate: f32,
    pub fast_cold_boost: f32,
    pub shared_memory_events: u64,
    pub warm_epochs: u32,
    pub warm_learning_rate: f32,
    pub warm_row_learning_rate: f32,
    pub warm_bias_learning_rate: f32,
    pub warm_prior_learning_rate: f32,
    pub warm_batch_size: usize,
    pub warm_fit_min_events: usize,
    pub num_negatives: usize,
    pub dropout: f32,
    pub id_dropout: f32,
    pub weight_decay: f32,
    pub warm_schedule: Schedule,
    pub warmup_steps: u32,
    pub accumulation_steps: u32,
    pub adversarial: AdversarialChoice,
    pub adversarial_epsilon: f32,
    pub adversarial_steps: u32,
    pub augment_crop: f32,
    pub augment_mask: f32,
    pub augment_reorder: f32,
    pub popularity_correction: f32,
    pub harm_penalty: f32,
    pub contrast_epochs: u32,
    pub contrast_temperature: f32,
    pub text_drop: f32,
    pub text_views: u32,
}

/// Step size over time, after its rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to a twentieth.
    Cosine,
    /// A line down to a twentieth.
    Linear,
    /// As it is.
    Constant,
}

/// What item rows are pushed by while the model learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialChoice {
    /// Nothing.
    None,
    /// One push along the gradient.
    Fgm,
    /// Several, held within a ball.
    Pgd,
}

/// What release steps move of the slow group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyChoice {
    /// Everything.
    Full,
    /// Matrices by changes of low rank.
    Lora,
    /// Bottlenecks beside the layers.
    Adapter,
    /// Biases and norms.
    Bitfit,
    /// Last norm and heads.
    Head,
    /// Nothing.
    Tables,
}

/// How old windows are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayChoice {
    /// Every user has the same chance.
    Users,
    /// Every event has.
    Events,
}

/// `[release]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseConfig {
    pub interval_secs: u64,
    pub interval_events: u64,
    pub steps: u32,
    pub learning_rate: f32,
    pub strategy: StrategyChoice,
    pub lora_rank: u32,
    pub projection_rate: f32,
    pub sequence_rate: f32,
    pub heads_rate: f32,
    pub schedule: Schedule,
    pub warmup_steps: u32,
    pub recent_share: f32,
    pub replay: ReplayChoice,
    pub l2_sp: f32,
    pub ewc: f32,
    pub distillation: f32,
    pub ensemble_versions: u32,
    #[serde(with = "optional")]
    pub teacher_dir: Option<PathBuf>,
    pub averaging: f32,
    pub refit_every_releases: u32,
    pub refit_skipped_share: f32,
    pub refit_passes: u32,
    pub refit_windows_max: usize,
    pub refit_rate: f32,
    pub refit_blend: f32,
    pub soup_share: f32,
    pub trial_events: u64,
    pub trial_secs_max: u64,
    pub pseudo_weight: f32,
    pub pseudo_confidence_min: f32,
    pub pseudo_events_max: usize,
}

/// `[text_tuning]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTuningConfig {
    pub steps: u32,
    pub rank: u32,
    pub learning_rate: f32,
    pub move_min: f32,
}

/// `[publish]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    pub delta_bytes_budget: usize,
    pub bytes_per_sec_max: u64,
    pub dead_zone: f32,
    pub block_len: usize,
    pub inline_delta_bytes_max: usize,
    pub chain_len_max: usize,
    pub skip_strides: Vec<u64>,
    pub snapshot_every_versions: u64,
    pub manifest_ttl_secs: u64,
    pub key_poll_secs: u64,
    pub keep_versions_min: u64,
    pub keep_secs_min: u64,
    pub step_cost_bytes: u64,
    pub compose_saving_min: f32,
    pub compose_wait_millis: u64,
    pub compose_share_max: f32,
    pub compose_states_bytes_max: usize,
    pub composed_bytes_max: u64,
    pub handed_out_grace_secs: u64,
    pub text_bytes_max: usize,
    #[serde(with = "optional")]
    pub text_recipe: Option<PathBuf>,
}

/// `[gate]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    pub log_loss_rise_max: f32,
    pub earlier_rise_max: f32,
    pub trial_rise_max: f32,
    pub agreement_min: f32,
    pub on_worse: WorseChoice,
    pub watch_margin: f64,
    pub watch_alpha: f64,
    pub watch_events: u64,
}

/// What is done once versions have become worse than one before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorseChoice {
    /// Return to that one.
    Rollback,
    /// Publish nothing until an operator unpins.
    Pin,
    /// Do not even look.
    Off,
}

impl WorseChoice {
    /// Whether versions are compared at all.
    #[must_use]
    pub fn is_watching(self) -> bool {
        match self {
            Self::Rollback | Self::Pin => true,
            Self::Off => false,
        }
    }
}

/// `[rollout]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    pub canary_share: u8,
    pub canary_interval_millis: u64,
    pub alpha: f32,
    pub rise_max: f32,
    pub difference_max: f32,
    pub max_secs: u64,
    pub faults_max: u64,
    pub fault_share_max: f32,
    pub ledger_rows_max: usize,
}

/// `[moderation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModerationConfig {
    pub approvals: u8,
    pub review_attribute: String,
    pub burst_window_secs: u32,
    pub burst_events_min: u32,
    pub burst_factor: f64,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    pub disk_bytes_max: u64,
    pub reserve_bytes: u64,
}

/// `[labels]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelsConfig {
    pub join_window_secs: u64,
    pub rating_positive_min: f64,
    pub burst_events_max: usize,
    pub burst_window_secs: u64,
    pub repeat_secs: u64,
    pub propensity_cap: f32,
    pub next_item_weight: KindWeights,
}

/// `[import]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportConfig {
    pub user_column: String,
    pub item_column: String,
    pub quantity_column: String,
    pub price_column: String,
    pub time_column: String,
    pub fees: Vec<String>,
    pub cancel_returns: bool,
    pub drop_duplicates: bool,
    pub merge_lines: bool,
    pub price_min: f64,
    pub quantity_max: f64,
}

/// One weight per kind of event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindWeights {
    pub impression: f32,
    pub view: f32,
    pub click: f32,
    pub add_to_cart: f32,
    pub purchase: f32,
    pub like: f32,
    pub dislike: f32,
    pub rating: f32,
    pub skip: f32,
    pub watch: f32,
}

impl KindWeights {
    /// The weight of `kind`.
    #[must_use]
    pub fn of(&self, kind: EventKind) -> f32 {
        match kind {
            EventKind::Impression => self.impression,
            EventKind::View => self.view,
            EventKind::Click => self.click,
            EventKind::AddToCart => self.add_to_cart,
            EventKind::Purchase => self.purchase,
            EventKind::Like => self.like,
            EventKind::Dislike => self.dislike,
            EventKind::Rating => self.rating,
            EventKind::Skip => self.skip,
            EventKind::Watch => self.watch,
        }
    }
}

/// Optional keys are always in the file; an empty text stands for `None`.
mod optional {
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        super::from_text(text).map(Some)
    }
}

fn text<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    from_text(String::deserialize(deserializer)?)
}

/// What a text stands for; one that stands for nothing is told.
fn from_text<T: DeserializeOwned, E: de::Error>(text: String) -> Result<T, E> {
    let read = T::deserialize(text.as_str().into_deserializer());
    read.map_err(|error: E| E::custom(format!("`{text}`, {error}")))
}
