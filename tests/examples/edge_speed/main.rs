//! How long a page takes to rank and to encode, beside onnxruntime-web in the same page of Chromium.
//!
//! `edge_speed prepare DIR` writes what the other side is made from; `edge_speed measure DIR` serves `DIR`, where the
//! built modules lie beside onnxruntime-web and its models, and writes one line of JSON. Both sides take turns, one
//! call each, on one thread. Run by `cargo xtask bench edge`.

mod encoding;
mod ranking;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use harness::browser::Browser;
use harness::site::Site;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir] = arguments.as_slice() else {
        bail!("expected `prepare DIR` or `measure DIR`");
    };
    let dir = PathBuf::from(dir);
    match what.as_str() {
        "prepare" => {
            encoding::prepare(&dir)?;
            ranking::prepare(&dir)
        }
        "measure" => measure(&dir).await,
        other => bail!("expected `prepare` or `measure`, not {other}"),
    }
}

async fn measure(dir: &Path) -> anyhow::Result<()> {
    let browser = Browser::start().await?;
    let browser = browser.context("nothing is measured without Chromium and the built modules")?;
    let site = Site::isolated(dir).await?;
    let page = browser.open_url(&site.url("page.html")).await?;
    let numbers = [
        ranking::measure(&page).await?,
        encoding::measure(&page, dir).await?,
    ];
    println!("{}", serde_json::Value::Array(numbers.to_vec()));
    browser.close().await
}
