//! Claims about repeatability: the same log, settings and seed give the same versions, bit for bit.
//!
//! Alone in its process, because dropout draws from a generator that all threads share.

use std::sync::Arc;

use burn::tensor::Device;
use harness::people::World;
use shared_model::ids::BlobId;
use shared_model::text::{AnyTextEncoder, SmallTextEncoder};
use trainer_server::config::Config;
use trainer_server::config::load::{Sources, load};
use trainer_server::event_log::{LogRecord, StoredEvent};
use trainer_server::learner::Learner;
use trainer_server::preprocess::Preprocessor;
use trainer_server::text_source::CachedTextEncoder;

const START_MILLIS: i64 = 1_700_000_000_000;
const HOUR_MILLIS: i64 = 3_600_000;
const NUM_FAST_VERSIONS: usize = 20;
const NUM_RELEASE_STEPS: usize = 5;

fn config(seed: u64) -> anyhow::Result<Arc<Config>> {
    let seed = seed.to_string();
    let flags = [
        ("model.embedding_dim", "16"),
        ("model.ff_dim", "32"),
        ("model.history_len", "16"),
        ("train.warm_epochs", "2"),
        ("train.warm_batch_size", "16"),
        ("train.seed", &seed),
        ("clock.mode", "event_time"),
    ];
    let flags = flags
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    Ok(Arc::new(load(&Sources {
        flags,
        ..Sources::default()
    })?))
}

/// A log: the catalogue, a past for the warm fit, and the events of the fast versions.
fn log() -> (Vec<LogRecord>, Vec<LogRecord>) {
    let mut world = World::new(51);
    let mut people = world.people(30);
    let mut past: Vec<LogRecord> = world
        .items
        .iter()
        .cloned()
        .map(LogRecord::ItemPut)
        .collect();
    let record = |event| {
        LogRecord::Event(StoredEvent {
            event,
            received_at: START_MILLIS,
            is_vouched: false,
            arm_phase: None,
        })
    };
    past.extend(
        world
            .past(&mut people, 10, HOUR_MILLIS, START_MILLIS)
            .into_iter()
            .map(record),
    );
    let stream = world.past(
        &mut people,
        NUM_FAST_VERSIONS / 2,
        HOUR_MILLIS,
        START_MILLIS + 100 * HOUR_MILLIS,
    );
    (past, stream.into_iter().map(record).collect())
}

/// Hashes of all versions: the first after a warm fit, fast ones, a release.
async fn versions(seed: u64) -> anyhow::Result<Vec<BlobId>> {
    let config = config(seed)?;
    let encoder = CachedTextEncoder::new(AnyTextEncoder::Small(SmallTextEncoder), None);
    let mut preprocessor = Preprocessor::new(&config);
    let mut learner = Learner::new(Arc::clone(&config), Device::flex(), encoder);
    let (past, stream) = log();
    learner.ingest(&mut preprocessor, &past)?;
    learner.warm_fit(&preprocessor, |_| true)?;
    let first = learner.candidate();
    let mut hashes = vec![first.hash()];
    let ready = learner.ready(&first);
    learner.went_live(Arc::new(first), ready);

    for records in stream.chunks(stream.len() / NUM_FAST_VERSIONS) {
        let batch = learner.ingest(&mut preprocessor, records)?;
        let report = learner.learn(&preprocessor, &batch, None).await?;
        assert_eq!(report.skipped, None);
        let state = learner.candidate();
        hashes.push(state.hash());
        let ready = learner.ready(&state);
        learner.went_live(Arc::new(state), ready);
    }

    let mut release = learner.start_release(&preprocessor);
    for _ in 0..NUM_RELEASE_STEPS {
        learner.release_step(&mut release, &preprocessor)?;
    }
    let (state, ready) = learner.finish_release(&mut release).await?;
    hashes.push(state.hash());
    learner.went_live(Arc::new(state), ready);
    learner.release_went_live(&release);
    Ok(hashes)
}

#[tokio::test]
async fn the_same_log_settings_and_seed_give_the_same_versions_and_another_seed_others()
-> anyhow::Result<()> {
    let first = versions(7).await?;
    let again = versions(7).await?;
    assert!(first.len() > NUM_FAST_VERSIONS);
    assert_eq!(first, again);
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(
        distinct.len(),
        first.len(),
        "every version learned something"
    );
    assert_ne!(first, versions(8).await?);
    Ok(())
}
