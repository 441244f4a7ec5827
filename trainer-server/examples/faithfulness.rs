//! Prints how faithful explanations are on a dataset: the score lost by forgetting the events that they name.
//!
//! `cargo run --example faithfulness -- DIR [num_users] [section.key=value …]`
//! Fits a version on the first 80 % of the events, as a server would, and asks users about their best unseen item.
//! What the figures mean stands in `docs/explanations.md`.

use std::path::PathBuf;

use anyhow::Context;
use indicatif::ProgressBar;
use trainer_server::config::load::{Sources, load};
use trainer_server::dataset::Dataset;
use trainer_server::evaluate::offline::Offline;
use trainer_server::faithfulness::comprehensiveness;

const SEED: u64 = 1;
const NUM_USERS: usize = 500;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().context("a dataset folder is wanted")?);
    let num_users = args.next().map_or(Ok(NUM_USERS), |text| text.parse())?;
    let mut flags = vec![("clock.mode".to_owned(), "event_time".to_owned())];
    for setting in args {
        let (key, value) = setting
            .split_once('=')
            .context("settings are section.key=value")?;
        flags.push((key.to_owned(), value.to_owned()));
    }
    let sources = Sources {
        file: None,
        env: Vec::new(),
        flags,
        ..Sources::default()
    };
    let dataset = Dataset::load(&dir, SEED)?;
    let split = dataset.split_at(0.8);
    let offline = Offline::new(load(&sources)?)?;
    let version = offline.fit(&dataset, &dataset.events[..split], &ProgressBar::hidden())?;
    let asked = comprehensiveness(
        (&version.ready, &version.state),
        &dataset,
        split,
        num_users,
        SEED,
    );
    let (num_users, figures) = pollster::block_on(asked)?;
    println!("{} · {num_users} users, best unseen item", dataset.name);
    println!(
        "forgotten | lost: explained, random, newest | explained − random, − newest (95 %) | rank after"
    );
    for figure in figures {
        let [explained, random, newest] = figure.lost;
        let [low, high] = figure.over_random;
        let [low_newest, high_newest] = figure.over_newest;
        let rank = figure.rank;
        println!(
            "{:>9} | {explained:.3} {random:.3} {newest:.3} | {:.3} [{low:.3}, {high:.3}], {:.3} [{low_newest:.3}, {high_newest:.3}] | {:.1} {:.1} {:.1}",
            figure.num_forgotten,
            explained - random,
            explained - newest,
            rank[0],
            rank[1],
            rank[2]
        );
    }
    Ok(())
}
