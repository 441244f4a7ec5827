//! One trial: settings, a warm fit that is shared where it can be, a stream, and the outcome on disk.
//!
//! A study is a folder: `warm/` weights by what they depend on, `trials/` outcomes by everything they depend on,
//! `texts/` embedded texts. A trial whose outcome is there is not run again.

use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::ids::{BlobId, Version};

use super::settings::{Settings, config, warm_part};
use super::stream::{Published, WalkOptions};
use super::{StudyError, stream};
use crate::baselines::ranked::Ranked;
use crate::baselines::timelines::Timelines;
use crate::checkpoint;
use crate::config::Config;
use crate::cross_encoder;
use crate::dataset::Dataset;
use crate::evaluate::cpu;
use crate::evaluate::figures::{SystemFigures, figures};
use crate::evaluate::offline::{Offline, records};
use crate::evaluate::outcomes::Outcomes;
use crate::learner::{LearnError, Learner};
use crate::preprocess::Preprocessor;
use crate::replay::{ReplayError, bar, write_json};

/// Raised when trials of before would come out otherwise, so that they are run again.
const STUDY_FORMAT: u32 = 2;

/// Which events are ranked. Everything before them is learned first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Stretch {
    /// The last fifth by time: what reports are about
    Test,
    /// The fifth of the first four fifths before it: what settings may be chosen by
    Validation,
}

impl Stretch {
    /// Its events.
    #[must_use]
    pub fn of(self, dataset: &Dataset) -> Range<usize> {
        match self {
            Self::Test => dataset.split_at(0.8)..dataset.events.len(),
            Self::Validation => dataset.split_at(0.64)..dataset.split_at(0.8),
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What differed from the defaults.
    pub settings: Settings,
    /// Rank of the taken item by event; absent where it was not ranked.
    pub ranks: Vec<Option<u32>>,
    /// `−ln` of its probability, mean over items new to the user.
    pub log_loss: Option<f64>,
    /// CPU seconds of the warm fit, whenever it was made.
    pub warm_cpu_secs: Option<f64>,
    /// CPU seconds of learning and publishing.
    pub stream_cpu_secs: Option<f64>,
    /// Bytes of a snapshot of the last version.
    pub snapshot_bytes: usize,
    /// Bytes of all fast deltas, per 1,000 events.
    pub fast_bytes_per_1000_events: f64,
    /// Median bytes of a fast delta.
    pub fast_bytes_median: Option<usize>,
    /// Median bytes of a release delta.
    pub release_bytes_median: Option<usize>,
    /// All bytes published, per 1,000 events.
    pub bytes_per_1000_events: f64,
    /// Releases let through.
    pub num_releases: usize,
    /// Releases refused.
    pub num_refused: usize,
    /// Share of the weights before it that each release kept.
    #[serde(default)]
    pub shares_kept: Vec<f32>,
    /// Steps skipped.
    pub num_skipped: usize,
    /// Mean rise of log loss by a release, for users not seen lately.
    pub forgetting: Option<f32>,
}

/// A folder of trials on one dataset.
#[derive(Debug)]
pub struct Study {
    dir: PathBuf,
    dataset: Dataset,
    stretch: Stretch,
    /// Settings of all trials.
    base: Settings,
    events_max: Option<usize>,
}

impl Study {
    /// Opens or makes the folder; at most the first `events_max` events of the stretch are ranked.
    ///
    /// # Errors
    /// The folder cannot be made, or the dataset is refused.
    pub fn open(
        dir: &Path,
        dataset_dir: &Path,
        stretch: Stretch,
        base: Settings,
        events_max: Option<usize>,
    ) -> Result<Self, StudyError> {
        for part in ["warm", "trials", "texts"] {
            let part = dir.join(part);
            std::fs::create_dir_all(&part).map_err(|error| StudyError::file(&part, error))?;
        }
        let dataset = Dataset::load(dataset_dir, 1).map_err(ReplayError::from)?;
        Ok(Self {
            dir: dir.to_owned(),
            dataset,
            stretch,
            base,
            events_max,
        })
    }

    /// What it is about.
    #[must_use]
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Settings of all trials with those of one laid over them.
    #[must_use]
    pub fn all_settings(&self, settings: &Settings) -> Settings {
        let mut all = self.base.clone();
        all.extend(settings.clone());
        all
    }

    /// Whether settings are valid, as [`Self::run`] would find later.
    ///
    /// # Errors
    /// Names what is wrong, and `name`.
    pub fn check(&self, name: &str, settings: &Settings) -> Result<Config, StudyError> {
        config(&self.base, settings).map_err(|source| StudyError::Config {
            variant: name.to_owned(),
            source,
        })
    }

    /// [`Self::check`], and whether the files that the settings name can be used.
    ///
    /// # Errors
    /// Names what is wrong, and `name`.
    pub fn check_files(&self, name: &str, settings: &Settings) -> Result<(), StudyError> {
        let config = self.check(name, settings)?;
        let teacher = cross_encoder::teacher::from_config(&config, &Device::flex());
        teacher.map_err(|source| StudyError::Teacher {
            variant: name.to_owned(),
            source,
        })?;
        Ok(())
    }

    fn range(&self) -> Range<usize> {
        let range = self.stretch.of(&self.dataset);
        let len = self.events_max.unwrap_or(usize::MAX).min(range.len());
        range.start..range.start + len
    }

    /// Runs a trial, or reads what came of it before.
    ///
    /// # Errors
    /// The settings are wrong, learning failed, or a file.
    pub fn run(
        &self,
        name: &str,
        settings: &Settings,
        published: Published,
    ) -> Result<Outcome, StudyError> {
        let config = self.check(name, settings)?;
        let path = self.dir.join("trials");
        let path = path.join(format!("{}.json", self.key(&config, published)?));
        if let Some(outcome) = read(&path)? {
            return Ok(outcome);
        }
        eprintln!("{name}");
        let range = self.range();
        let offline = Offline::within(config, &self.dir.join("texts"));
        let (mut learner, mut preprocessor) = offline.learner(&self.dataset)?;
        let warm = records(&self.dataset, &self.dataset.events[..range.start], 0)?;
        learner
            .ingest(&mut preprocessor, &warm)
            .map_err(ReplayError::from)?;
        let warm_cpu_secs = self.warm_up(&mut learner, &preprocessor)?;
        stream::go_live(&mut learner, published, usize::MAX)?;
        let progress = bar(range.len(), "stream");
        let parts = (&mut learner, &mut preprocessor);
        let options = WalkOptions {
            published,
            interval_events: offline.config().release.interval_events,
            chunk_len: stream::CHUNK_LEN,
        };
        let streamed = stream::walk(&self.dataset, range.clone(), parts, options, &progress)?;
        progress.finish_and_clear();
        let figures = self.figures_of(&streamed.ranked);
        let per_1000_events = |bytes: usize| 1000.0 * bytes as f64 / range.len().max(1) as f64; // counts fit f64
        let fast_bytes: usize = streamed.fast_bytes.iter().sum();
        let release_bytes: usize = streamed.release_bytes.iter().sum();
        let outcome = Outcome {
            settings: settings.clone(),
            ranks: streamed.ranked.iter().map(|ranked| ranked.rank).collect(),
            log_loss: figures.and_then(|figures| figures.headline.log_loss),
            warm_cpu_secs,
            stream_cpu_secs: streamed.cpu_secs.as_ref().ok().copied(),
            snapshot_bytes: snapshot_len(&learner)?,
            fast_bytes_per_1000_events: per_1000_events(fast_bytes),
            bytes_per_1000_events: per_1000_events(fast_bytes + release_bytes),
            fast_bytes_median: median(streamed.fast_bytes),
            num_releases: streamed.release_bytes.len(),
            release_bytes_median: median(streamed.release_bytes),
            num_refused: streamed.num_refused,
            num_skipped: streamed.num_skipped,
            shares_kept: streamed.shares_kept,
            forgetting: mean(&streamed.forgetting),
        };
        write_json(&path, &json!(outcome))?;
        Ok(outcome)
    }

    /// Figures of one system over the stretch.
    fn figures_of(&self, ranked: &[Ranked]) -> Option<SystemFigures> {
        let mut outcomes = self.outcomes();
        outcomes.answer("freshet", ranked);
        figures(&outcomes, "freshet")
    }

    /// Figures of a trial; those that need whole lists are empty.
    #[must_use]
    pub fn figures(&self, outcome: &Outcome) -> Option<SystemFigures> {
        self.figures_of(&ranked(outcome))
    }

    /// The questions of the stretch, without answers.
    #[must_use]
    pub fn outcomes(&self) -> Outcomes {
        self.outcomes_of(0..self.range().len())
    }

    /// The questions of a part of the stretch, counted from its start.
    #[must_use]
    pub fn outcomes_of(&self, part: Range<usize>) -> Outcomes {
        let dataset = &self.dataset;
        let first = self.range().start;
        let range = first + part.start..first + part.end;
        let mut timelines = Timelines::new(dataset.users.len());
        for event in &dataset.events[..range.start] {
            timelines.push(event);
        }
        let asked = dataset.events[range.clone()].iter();
        let queries: Vec<_> = asked.map(|event| timelines.push(event)).collect();
        let mut outcomes = Outcomes::new(dataset.items.len(), &dataset.events[..range.start]);
        outcomes.ask(&queries);
        outcomes
    }

    /// A file name for what comes of `config`: it, the events behind it, and the program.
    fn key(&self, config: &Config, published: Published) -> Result<String, StudyError> {
        let config =
            serde_json::to_value(config).map_err(|error| StudyError::file(&self.dir, error))?;
        let range = self.range();
        let events = &self.dataset.events[..range.end];
        let checksum = events.iter().fold(0_u64, |sum, event| {
            let item = (u64::from(event.user_idx) << 32) | u64::from(event.item_idx);
            (sum.rotate_left(7) ^ item).wrapping_add(event.occurred_at as u64) // bits of a time
        });
        let scope = json!([self.dataset.name, checksum, range.start, range.end]);
        Ok(key(&json!([STUDY_FORMAT, scope, config, published])))
    }

    /// Fits, or takes the weights of an earlier fit with the same settings; its CPU seconds.
    fn warm_up(
        &self,
        learner: &mut Learner,
        preprocessor: &Preprocessor,
    ) -> Result<Option<f64>, StudyError> {
        let part: Config = warm_part(learner.config());
        let dir = self
            .dir
            .join("warm")
            .join(self.key(&part, Published::Codes)?);
        let cost_path = dir.join("cpu_secs.json");
        if let Some(saved) = checkpoint::load(&dir)? {
            let is_same = learner.load_weights(&saved).is_some();
            if is_same {
                return Ok(read(&cost_path)?.flatten());
            }
        }
        let before = cpu::own_secs();
        let progress = bar(0, "warm fit");
        learner
            .warm_fit(preprocessor, |step| {
                progress.set_length(step.num_steps_total as u64); // usize fits u64
                progress.set_position(step.num_steps as u64); // likewise
                true
            })
            .map_err(|error: LearnError| ReplayError::from(error))?;
        progress.finish_and_clear();
        let cpu_secs = before.and_then(|before| Ok(cpu::own_secs()? - before)).ok(); // absent where not known
        std::fs::create_dir_all(&dir).map_err(|error| StudyError::file(&dir, error))?;
        write_json(&cost_path, &json!(cpu_secs))?;
        let (parameters, optimizer) = (learner.parameters(), learner.optimizer());
        checkpoint::save(&dir, Version(1), parameters, optimizer)?;
        Ok(cpu_secs)
    }
}

/// Bytes of a snapshot of the live version.
fn snapshot_len(learner: &Learner) -> Result<usize, StudyError> {
    let live = learner.live().ok_or(ReplayError::NoVersion)?;
    let bytes = encode_snapshot(&live.state, Version(1));
    let bytes = bytes.map_err(|error| StudyError::Delta(error.to_string()))?;
    Ok(bytes.len())
}

/// Answers as far as ranks tell them.
pub(super) fn ranked(outcome: &Outcome) -> Vec<Ranked> {
    let ranks = outcome.ranks.iter();
    ranks
        .map(|rank| Ranked {
            rank: *rank,
            ..Ranked::NOTHING
        })
        .collect()
}

fn mean(values: &[f32]) -> Option<f32> {
    (!values.is_empty()).then(|| values.iter().sum::<f32>() / values.len() as f32) // counts fit f32
}

fn median(mut values: Vec<usize>) -> Option<usize> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// A file name for a value.
fn key(value: &serde_json::Value) -> String {
    let mut text = BlobId::of(value.to_string().as_bytes()).to_string();
    text.truncate(16);
    text
}

/// A file of ours; `None` where there is none.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StudyError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StudyError::file(path, error)),
    };
    let value = serde_json::from_str(&text).map_err(|error| StudyError::file(path, error))?;
    Ok(Some(value))
}
