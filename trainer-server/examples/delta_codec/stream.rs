//! Pairs of versions of the Ranker, as the learner makes them along a stream.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use indicatif::ProgressBar;
use shared_model::codec::state::CodeState;
use trainer_server::dataset::Dataset;
use trainer_server::evaluate::offline::{Offline, config, records};
use trainer_server::learner::Learner;
use trainer_server::study::stream::{CHUNK_LEN, Published, WalkOptions, go_live, walk};
use trainer_server::study::trial::Stretch;

use crate::measure::Pair;

/// Rounds of the walk.
const NUM_ROUNDS: usize = 128;
/// Rounds between the two versions of a pair, for pairs that start in the middle of the walk.
const DISTANCES: [usize; 5] = [1, 4, 16, 48, 64];

/// Walks and hands every pair to `report`.
pub(crate) fn pairs(
    dataset_dir: &Path,
    cache_dir: &Path,
    report: impl Fn(&Pair) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let dataset = Dataset::load(dataset_dir, 1)?;
    let offline = Offline::within(config(None)?, cache_dir);
    let (mut learner, mut preprocessor) = offline.learner(&dataset)?;
    let stretch = Stretch::Test.of(&dataset);
    let warm = records(&dataset, &dataset.events[..stretch.start], 0)?;
    learner.ingest(&mut preprocessor, &warm)?;
    learner.warm_fit(&preprocessor, |_| true)?;
    go_live(&mut learner, Published::Codes, usize::MAX)?;
    let mut states = vec![live(&learner)?];
    for round in 0..NUM_ROUNDS {
        let first = stretch.start + round * CHUNK_LEN;
        let range = first..(first + CHUNK_LEN).min(stretch.end);
        let parts = (&mut learner, &mut preprocessor);
        let options = coded(u64::MAX);
        walk(&dataset, range, parts, options, &ProgressBar::hidden())?;
        states.push(live(&learner)?);
    }
    let middle = NUM_ROUNDS / 2;
    for distance in DISTANCES {
        let name = format!("{}, {distance} rounds", dataset.name);
        report(&pair(name, &states[middle], &states[middle + distance]))?;
    }
    let first = stretch.start + NUM_ROUNDS * CHUNK_LEN;
    let before = live(&learner)?;
    let options = coded(offline.config().release.interval_events);
    let parts = (&mut learner, &mut preprocessor);
    let hidden = ProgressBar::hidden();
    walk(&dataset, first..stretch.end, parts, options, &hidden)?;
    let name = format!("{}, the rest with releases", dataset.name);
    let after = live(&learner)?;
    report(&pair(name, &before, &after))
}

/// As a server publishes, with a release every so many events.
fn coded(interval_events: u64) -> WalkOptions {
    WalkOptions {
        published: Published::Codes,
        interval_events,
        chunk_len: CHUNK_LEN,
    }
}

fn live(learner: &Learner) -> anyhow::Result<Arc<CodeState>> {
    let live = learner.live().context("a version is live")?;
    Ok(Arc::clone(&live.state))
}

fn pair(name: String, base: &CodeState, target: &CodeState) -> Pair {
    Pair {
        name,
        shapes: target.shapes(),
        base: base.tensors.clone(),
        target: target.tensors.clone(),
    }
}
