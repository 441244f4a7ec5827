//! The stream, a warm fit over its beginning, and a learner that goes on from there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::ids::Version;
use trainer_server::checkpoint::Checkpoint;
use trainer_server::dataset::{Dataset, DatasetEvent};
use trainer_server::evaluate::offline::{Offline, records};
use trainer_server::event_log::LogRecord;
use trainer_server::gate::{GateError, GateFigures};
use trainer_server::learner::{Learner, ReleaseTraining};
use trainer_server::preprocess::Preprocessor;
use trainer_server::study::settings::{Settings, config};
use trainer_server::train::fast_step::FastOptimizer;

/// Events behind the warm fit.
const NUM_FITTED: usize = 30_000;
/// Rounds after it until taste, popularity and neighbours have found their weights: before, whatever is learned makes
/// versions better.
const NUM_CALIBRATING: usize = 150;
/// Events that a run has learned when it begins.
const NUM_WARM: usize = NUM_FITTED + NUM_CALIBRATING * CHUNK_LEN;
/// Events of one round.
pub(crate) const CHUNK_LEN: usize = 128;
/// Rounds after which the gate has events of many batches to ask about.
pub(crate) const NUM_ROUNDS_BEFORE: usize = 12;

/// A model that fits in seconds.
const BASE: [(&str, &str); 9] = [
    ("model.text_encoder", "small"),
    ("model.embedding_dim", "32"),
    ("model.ff_dim", "64"),
    ("model.history_len", "20"),
    ("train.device", "flex"),
    ("train.warm_epochs", "3"),
    ("train.seed", "7"),
    ("release.steps", "10"),
    ("release.trial_events", "256"),
];

/// The stream and what was fitted to its beginning.
pub(crate) struct Scene {
    pub(crate) dataset: Dataset,
    warm: Checkpoint,
}

impl Scene {
    /// Fits once for all tests; `None`, and a word about it, where there is no stream.
    pub(crate) fn get() -> Option<&'static Self> {
        static SCENE: OnceLock<Option<Scene>> = OnceLock::new();
        SCENE.get_or_init(Self::fit).as_ref()
    }

    fn fit() -> Option<Self> {
        let Some(data_dir) = std::env::var_os("FRESHET_DATA") else {
            println!("skipped: FRESHET_DATA names no folder with online-retail");
            return None;
        };
        let dir = PathBuf::from(data_dir).join("online-retail");
        if !dir.join("events.tsv").is_file() {
            println!("skipped: there is no stream in {}", dir.display());
            return None;
        }
        let dataset = Dataset::load(&dir, 1).expect("a dataset that others read, too");
        let mut scene = Self {
            dataset,
            warm: Checkpoint {
                version: Version(1),
                tensors: BTreeMap::new(),
                optimizer: FastOptimizer::default(),
            },
        };
        let mut run = scene.unfitted(&[], NUM_FITTED);
        run.learner
            .warm_fit(&run.preprocessor, |_| true)
            .expect("fitted");
        let first = run.learner.candidate();
        let ready = run.learner.ready(&first);
        run.learner.went_live(Arc::new(first), ready);
        for _ in 0..NUM_CALIBRATING {
            let chunk = run.next_chunk(CHUNK_LEN);
            run.learn(&chunk);
            run.publish_what_passes();
        }
        let (tensors, optimizer) = (weights(&run.learner), run.learner.optimizer().clone());
        (scene.warm.tensors, scene.warm.optimizer) = (tensors, optimizer);
        Some(scene)
    }

    /// A learner that has taken in the beginning of the stream.
    fn unfitted(&self, changes: &[(&str, &str)], num_events: usize) -> Run<'_> {
        let settings = |pairs: &[(&str, &str)]| -> Settings {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let config = config(&settings(&BASE), &settings(changes)).expect("valid settings");
        let offline = Offline::new(config).expect("a temporary folder");
        let (mut learner, mut preprocessor) =
            offline.learner(&self.dataset).expect("texts are embedded");
        let past =
            records(&self.dataset, &self.dataset.events[..num_events], 0).expect("short ids");
        learner.ingest(&mut preprocessor, &past).expect("taken in");
        Run {
            dataset: &self.dataset,
            learner,
            preprocessor,
            at: num_events,
        }
    }

    /// A learner whose first version is live.
    pub(crate) fn run(&self, changes: &[(&str, &str)]) -> Run<'_> {
        let mut run = self.unfitted(changes, NUM_WARM);
        run.learner
            .load_weights(&self.warm)
            .expect("of the same sizes");
        let state = run.learner.candidate();
        let ready = run.learner.ready(&state);
        run.learner.went_live(Arc::new(state), ready);
        run
    }

    /// [`Self::run`] after some rounds in which everything was as it should be.
    pub(crate) fn settled(&self, changes: &[(&str, &str)]) -> Run<'_> {
        let mut run = self.run(changes);
        for _ in 0..NUM_ROUNDS_BEFORE {
            let chunk = run.next_chunk(CHUNK_LEN);
            run.learn(&chunk);
            run.publish_what_passes();
        }
        run
    }
}

/// A version that passed.
pub(crate) struct Passed {
    pub(crate) state: CodeState,
    pub(crate) ready: ReadyVersion,
    pub(crate) figures: GateFigures,
}

/// A learner on its way through the stream.
pub(crate) struct Run<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) learner: Learner,
    pub(crate) preprocessor: Preprocessor,
    at: usize,
}

impl Run<'_> {
    /// The events that come next.
    pub(crate) fn next_chunk(&mut self, len: usize) -> Vec<DatasetEvent> {
        let chunk = self.dataset.events[self.at..self.at + len].to_vec();
        self.at += len;
        chunk
    }

    /// Takes events in and learns them.
    pub(crate) fn learn(&mut self, events: &[DatasetEvent]) {
        let records = records(self.dataset, events, self.at).expect("short ids");
        self.learn_records(&records);
    }

    pub(crate) fn learn_records(&mut self, records: &[LogRecord]) {
        let batch = self
            .learner
            .ingest(&mut self.preprocessor, records)
            .expect("taken in");
        let learning = self.learner.learn(&self.preprocessor, &batch, None);
        pollster::block_on(learning).expect("scored and learned");
    }

    /// What the gate says of the next version.
    pub(crate) fn judge(&mut self) -> Result<Passed, GateError> {
        self.judge_changed(|_| ())
    }

    /// The same of a version whose codes were changed after training.
    pub(crate) fn judge_changed(
        &mut self,
        change: impl FnOnce(&mut CodeState),
    ) -> Result<Passed, GateError> {
        let mut state = self.learner.candidate();
        change(&mut state);
        let ready = self.learner.ready(&state);
        let figures = pollster::block_on(self.learner.check(&state, &ready))?;
        Ok(Passed {
            state,
            ready,
            figures,
        })
    }

    /// What a server does with a candidate: one that is refused is taken back.
    pub(crate) fn publish_what_passes(&mut self) {
        match self.judge() {
            Ok(passed) => self.publish(passed),
            Err(_refused) => self.learner.undo_last(),
        }
    }

    pub(crate) fn publish(&mut self, version: Passed) {
        self.learner
            .went_live(Arc::new(version.state), version.ready);
    }

    /// A release over the next events, and what the gate says of it; it is not published yet.
    pub(crate) fn judge_release(
        &mut self,
    ) -> Result<(ReleaseTraining, CodeState, ReadyVersion), GateError> {
        let mut release = self.learner.start_release(&self.preprocessor);
        while !release.is_complete() {
            // A step that is refused is what a damaged learner may do.
            self.learner
                .release_step(&mut release, &self.preprocessor)
                .ok();
        }
        while !release.is_tried() {
            let chunk = self.next_chunk(CHUNK_LEN);
            let records = records(self.dataset, &chunk, self.at).expect("short ids");
            let batch = self
                .learner
                .ingest(&mut self.preprocessor, &records)
                .expect("taken in");
            let learning = self
                .learner
                .learn(&self.preprocessor, &batch, Some(&mut release));
            pollster::block_on(learning).expect("scored and learned");
        }
        let (state, ready) = pollster::block_on(self.learner.finish_release(&mut release))?;
        Ok((release, state, ready))
    }

    pub(crate) fn publish_release(
        &mut self,
        (release, state, ready): (ReleaseTraining, CodeState, ReadyVersion),
    ) {
        self.learner.went_live(Arc::new(state), ready);
        self.learner.release_went_live(&release);
    }

    /// What the gate says of the next version if the weights were others, which they are not afterwards.
    pub(crate) fn judge_mistrained(
        &mut self,
        change: impl FnOnce(&mut BTreeMap<String, Vec<f32>>),
    ) -> Result<Passed, GateError> {
        let sound = weights(&self.learner);
        let mut changed = sound.clone();
        change(&mut changed);
        self.take_weights(changed);
        let judged = self.judge();
        self.take_weights(sound);
        judged
    }

    pub(crate) fn take_weights(&mut self, tensors: BTreeMap<String, Vec<f32>>) {
        let checkpoint = Checkpoint {
            version: Version(1),
            tensors,
            optimizer: FastOptimizer::default(),
        };
        self.learner
            .load_weights(&checkpoint)
            .expect("of the same sizes");
    }
}

/// Trained weights by name.
pub(crate) fn weights(learner: &Learner) -> BTreeMap<String, Vec<f32>> {
    let parameters = learner.parameters();
    let trained = parameters.shapes().into_iter().zip(&parameters.tensors);
    let trained = trained.filter(|(shape, _)| shape.is_trained());
    trained
        .map(|(shape, values)| (shape.name, values.clone()))
        .collect()
}
