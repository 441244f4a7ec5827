//! How long a page takes to embed texts with packed encoders, all in one page of Chromium, taking turns.
//!
//! `encoder_speed DIR FILE …` serves `DIR`, where the built modules and the files lie, and prints one line of JSON: by
//! file the milliseconds of a query of a few words and of a text of some thirty tokens, and until it embeds at all. The
//! module is the plain one, or the one that the page would choose. Run by `cargo xtask bench compress`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use harness::browser::Browser;
use harness::site::Site;
use serde_json::json;
use shared_model::ids::BlobId;

const SCRIPT: &str = include_str!("page.js");
/// As visitors type them, and as shops describe what they sell.
const TEXTS: [(&str, &str); 2] = [
    ("query", "blue and white china teapot"),
    (
        "text",
        "White hanging heart tea light holder made of powder-coated metal wire, with a glass cup for one candle. Hangs \
         from a satin ribbon on a hook or a branch",
    ),
];
const NUM_CALLS: usize = 60;
const NUM_WARM_UP_CALLS: usize = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .context("expected `encoder_speed DIR FILE …`")?,
    );
    let files: Vec<String> = arguments.collect();
    ensure!(!files.is_empty(), "no file is named");
    let mut encoders = Vec::new();
    for file in &files {
        let bytes = fs::read(dir.join(file)).with_context(|| format!("cannot read {file}"))?;
        encoders.push(json!({ "file": file, "id": BlobId::of(&bytes).to_hex() }));
    }
    let input = json!({
        "encoders": encoders,
        "texts": TEXTS.map(|(name, text)| json!({ "name": name, "text": text })),
        "num_calls": NUM_CALLS,
        "num_warm_up_calls": NUM_WARM_UP_CALLS,
    });
    let browser = Browser::start().await?;
    let browser = browser.context("nothing is measured without Chromium and the built modules")?;
    let site = Site::isolated(&dir).await?;
    let page = browser.open_url(&site.url("page.html")).await?;
    let measured = page.run(SCRIPT, vec![input]).await?;
    println!("{measured}");
    browser.close().await
}
