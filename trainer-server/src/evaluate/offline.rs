//! A learner without a server: the same code, fed from a dataset, for protocols and refits that need no HTTP.
//!
//! What comes out is a version as a page would hold it, codes and all. Not here: which events are learned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::ids::EventId;

use crate::baselines::Baselines;
use crate::baselines::text_only::TextOnly;
use crate::baselines::timelines::{Query, Timelines};
use crate::config::load::{Sources, load};
use crate::config::{Config, ConfigError};
use crate::cross_encoder;
use crate::dataset::{Dataset, DatasetEvent};
use crate::event_log::{LogRecord, StoredEvent};
use crate::learner::Learner;
use crate::preprocess::Preprocessor;
use crate::replay::ReplayError;
use crate::replay::scoring::ItemRows;
use crate::replay::walk::FrozenVersion;
use crate::text_source::{self, CachedTextEncoder, EmbeddingCache};
use crate::train::count_history::CountHistory;

/// What every fit of one evaluation shares: the configuration, and a folder where embedded texts are kept.
#[derive(Debug)]
pub struct Offline {
    config: Arc<Config>,
    cache_dir: PathBuf,
    /// Deletes the folder at the end, where it is temporary.
    _guard: Option<tempfile::TempDir>,
}

impl Offline {
    /// Learns as a server with this configuration would, on the CPU.
    ///
    /// # Errors
    /// No temporary folder can be made.
    pub fn new(config: Config) -> Result<Self, ReplayError> {
        let cache_dir = tempfile::Builder::new()
            .prefix("freshet-evaluate-")
            .tempdir()
            .map_err(|source| ReplayError::Folder { source })?;
        Ok(Self {
            config: Arc::new(config),
            cache_dir: cache_dir.path().to_owned(),
            _guard: Some(cache_dir),
        })
    }

    /// The same with the texts in a folder that is there and stays.
    #[must_use]
    pub fn within(config: Config, cache_dir: &Path) -> Self {
        Self {
            config: Arc::new(config),
            cache_dir: cache_dir.to_owned(),
            _guard: None,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A learner that knows the catalogue of `dataset` and nothing else.
    ///
    /// # Errors
    /// The texts cannot be embedded.
    pub fn learner(&self, dataset: &Dataset) -> Result<(Learner, Preprocessor), ReplayError> {
        let device = Device::flex();
        let encoder = text_source::from_config(&self.config, &device)?;
        let cache = match EmbeddingCache::open(&self.cache_dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::debug!(%error, "texts are embedded anew"); // another evaluation holds the folder
                None
            }
        };
        let encoder = CachedTextEncoder::new(encoder, cache);
        let teacher = cross_encoder::teacher::from_config(&self.config, &device)
            .map_err(|error| ReplayError::Teacher(Box::new(error)))?;
        let learner = Learner::new(Arc::clone(&self.config), device, encoder);
        let mut learner = learner.taught_by(teacher);
        let mut preprocessor = Preprocessor::new(&self.config);
        let items = dataset.items.iter().cloned().map(LogRecord::ItemPut);
        learner.ingest(&mut preprocessor, &items.collect::<Vec<_>>())?;
        Ok((learner, preprocessor))
    }

    /// A first version, fitted from nothing over `events`, which are in time order; `progress` counts its steps.
    ///
    /// # Errors
    /// The texts cannot be embedded, or training gave up.
    pub fn fit<'a>(
        &self,
        dataset: &Dataset,
        events: impl IntoIterator<Item = &'a DatasetEvent>,
        progress: &ProgressBar,
    ) -> Result<FrozenVersion, ReplayError> {
        self.fit_with_counts(dataset, events, progress)
            .map(|(version, _)| version)
    }

    /// [`fit`](Self::fit), and the item counts of all times.
    ///
    /// # Errors
    /// Those of `fit`.
    pub fn fit_with_counts<'a>(
        &self,
        dataset: &Dataset,
        events: impl IntoIterator<Item = &'a DatasetEvent>,
        progress: &ProgressBar,
    ) -> Result<(FrozenVersion, CountHistory), ReplayError> {
        let (mut learner, mut preprocessor) = self.learner(dataset)?;
        learner.ingest(&mut preprocessor, &records(dataset, events, 0)?)?;
        let (state, ready) = if learner.is_private() {
            private_fit(&mut learner, &preprocessor, progress)?
        } else {
            learner.warm_fit(&preprocessor, |step| {
                progress.set_length(step.num_steps_total as u64); // usize fits u64
                progress.set_position(step.num_steps as u64); // likewise
                true
            })?;
            let state = learner.candidate();
            let ready = learner.ready(&state);
            (state, ready)
        };
        let rows = ItemRows::new(dataset, &ready);
        let counts = learner.count_history(&preprocessor);
        Ok((FrozenVersion { ready, state, rows }, counts))
    }
}

/// One private round from an untrained version, as a private server begins.
fn private_fit(
    learner: &mut Learner,
    preprocessor: &Preprocessor,
    progress: &ProgressBar,
) -> Result<(CodeState, ReadyVersion), ReplayError> {
    let mut rng = StdRng::from_os_rng();
    let first = learner.candidate();
    let ready = learner.ready(&first);
    learner.went_live(Arc::new(first), ready);
    let mut round = learner.start_private_round();
    progress.set_length(u64::from(round.num_steps_total()));
    while !round.is_complete() {
        learner.private_step(&mut round, preprocessor, &mut rng);
        progress.set_position(u64::from(round.num_steps()));
    }
    let finished = learner.finish_private_round(&mut round);
    finished.map_err(|error| ReplayError::PrivateFit(Box::new(error)))
}

/// Log records of events, with ids that count from `first_id`.
///
/// # Errors
/// Never: the ids are short.
pub fn records<'a>(
    dataset: &Dataset,
    events: impl IntoIterator<Item = &'a DatasetEvent>,
    first_id: usize,
) -> Result<Vec<LogRecord>, ReplayError> {
    let record = |(idx, event)| {
        let event = dataset.to_event(event, EventId::new(format!("e{}", first_id + idx))?);
        let received_at = event.occurred_at;
        Ok(LogRecord::Event(StoredEvent {
            event,
            received_at,
            is_vouched: false,
            arm_phase: None,
        }))
    };
    events.into_iter().enumerate().map(record).collect()
}

/// The configuration that a server of the evaluation would run with: event time, defaults where `file` is silent.
///
/// # Errors
/// The file or a variable is wrong.
pub fn config(file: Option<&Path>) -> Result<Config, ConfigError> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))) // not text: not ours
        .collect();
    let flags = vec![("clock.mode".to_owned(), "event_time".to_owned())];
    load(&Sources {
        file,
        env,
        flags,
        ..Sources::default()
    })
}

/// Baselines that have learned `queries`, with the text embeddings that pages have.
#[must_use]
pub fn baselines(
    dataset: &Dataset,
    version: &FrozenVersion,
    queries: &[Query],
    timelines: &Timelines,
) -> Baselines {
    let num_items = dataset.items.len();
    let text_only = text_embeddings(dataset, version)
        .and_then(|embeddings| TextOnly::new(&embeddings, num_items, &Device::flex()));
    let mut baselines = Baselines::new(num_items, text_only);
    for query in queries {
        baselines.learn(query, timelines);
    }
    baselines
}

/// Text embeddings in the order of the dataset; zeros for items that the version lacks.
fn text_embeddings(dataset: &Dataset, version: &FrozenVersion) -> Option<Vec<f32>> {
    let tensor = version
        .state
        .tensor("item.text")
        .filter(|tensor| tensor.num_cols > 0)?;
    let mut embeddings = Vec::with_capacity(dataset.items.len() * tensor.num_cols);
    for item_idx in 0..dataset.items.len() as u32 {
        // fits: NUM_ITEMS_MAX is 2^20
        match version.rows.row(item_idx) {
            Some(row) => embeddings.extend(tensor.dequantize_row(row as usize)),
            None => embeddings.resize(embeddings.len() + tensor.num_cols, 0.0),
        }
    }
    Some(embeddings)
}
