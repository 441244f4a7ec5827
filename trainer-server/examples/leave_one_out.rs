//! A dataset in the order in which `freshet evaluate` takes it, as an atomic file of RecBole.
//!
//! `leave_one_out DATASET_DIR SEED INTER_FILE`
//!
//! Writes one line per event, `user item position`, indices of the dataset, the position in place of a time: events
//! of the same second keep the random order of `SEED`, so both sides hold out the same last event of each user.
//! Not here: the other side (`xtask/bench/leave_one_out_recbole.py`) and what is made of both (`xtask`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use trainer_server::dataset::Dataset;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dataset_dir, seed, path] = arguments.as_slice() else {
        bail!("usage: leave_one_out DATASET_DIR SEED INTER_FILE");
    };
    let seed = seed
        .parse()
        .with_context(|| format!("SEED is {seed:?}, expected a whole number"))?;
    let dataset = Dataset::load(Path::new(dataset_dir), seed)?;
    let file = File::create(path).with_context(|| format!("cannot write {path}"))?;
    let mut file = BufWriter::new(file);
    writeln!(file, "user_id:token\titem_id:token\ttimestamp:float")?;
    for (position, event) in dataset.events.iter().enumerate() {
        writeln!(file, "{}\t{}\t{position}", event.user_idx, event.item_idx)?;
    }
    file.flush()?;
    Ok(())
}
