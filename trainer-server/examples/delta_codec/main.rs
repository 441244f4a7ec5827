//! What `cargo xtask bench delta` measures: deltas of the codec beside zstd, bsdiff and the entropy of the change.
//!
//! `delta_codec stream DATASET_DIR CACHE_DIR | delta_codec encoder BASE_DIR TUNED_DIR`
//!
//! `stream` drives the learner over the test stretch of a dataset and takes pairs of its versions, from one round
//! apart to the whole stretch. `encoder` takes the weights of a text encoder before and after tuning, as int8 codes
//! per row, and moves the codes whose weights changed most until a wanted share of them has moved; beside them the
//! same shares of codes drawn by chance and moved by one.
//! Writes one case per line to standard output, as JSON. Not here: who tunes the encoder, and the report (`xtask`).

mod encoder;
mod measure;
mod rivals;
mod stream;

use std::io::Write;
use std::path::Path;

use anyhow::bail;
use measure::Pair;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["stream", dataset_dir, cache_dir] => {
            stream::pairs(Path::new(dataset_dir), Path::new(cache_dir), report)
        }
        ["encoder", base_dir, tuned_dir] => {
            encoder::pairs(Path::new(base_dir), Path::new(tuned_dir), report)
        }
        _ => bail!("wanted: stream DATASET_DIR CACHE_DIR | encoder BASE_DIR TUNED_DIR"),
    }
}

fn report(pair: &Pair) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", measure::case(pair)?)?;
    out.flush()?;
    Ok(())
}
