//! A new generation of the encoder in Chromium: pages fetch what it has learned beside the file that they have.

use anyhow::{Context, ensure};
use harness::browser::Browser;
use harness::people::World;
use harness::ranking::check_close;
use harness::scene::NOW_MILLIS;
use harness::server::Server;
use harness::wait;
use reqwest::Method;
use serde_json::{Value, json};
use shared_model::codec::quantize::dequantize;
use shared_model::codec::state::CodeState;
use shared_model::event::Item;
use shared_model::manifest::TextEncoderKind;
use shared_model::text::{LowRankChange, PackedEncoder};

use crate::over_http::{PATIENCE, setup, until_generation};

/// Another CPU instruction set adds up in another order.
const TOLERANCE: f64 = 1e-4;
const QUERY: &str = "lantern number 7";

/// What pages are given for a generation, once they are.
async fn given(server: &Server, generation: u32) -> anyhow::Result<TextEncoderKind> {
    wait::until("there is an encoder", PATIENCE, async || {
        server.api.text_encoder_kind(generation).await
    })
    .await
}

/// Mean of 1 − cosine of titles by the encoder of a page with their rows in a version.
fn distance(encoder: PackedEncoder, state: &CodeState, items: &[Item]) -> anyhow::Result<f32> {
    let (tokenizer, network) = encoder.open()?;
    let rows = state.tensor("item.text").context("texts")?;
    let mut sum = 0.0;
    for (row_idx, item) in items.iter().enumerate() {
        let embedded = network.encode(&[tokenizer.tokenize(&item.full_text())?])?;
        let row = rows.row(row_idx).iter();
        let row: Vec<f32> = row
            .map(|code| dequantize(*code, rows.exponents[row_idx]))
            .collect();
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        let dot: f32 = embedded.iter().zip(&row).map(|(a, b)| a * b).sum();
        sum += 1.0 - dot / length;
    }
    Ok(sum / items.len() as f32)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_get_what_the_encoder_has_learned_beside_the_file_that_they_have()
-> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let mut world = World::new(8);
    let server = Server::start(setup(dir.path(), &mut world)?).await?;
    server.has_learned_all().await?;
    let (_, state) = server.api.newest_version().await?;
    let loaded = state.encoder_generation;
    let TextEncoderKind::Packed(file) = given(&server, loaded).await? else {
        anyhow::bail!("the encoder as it was loaded is a file");
    };
    let page = browser.open_on_cpu(&server.address().url).await?;
    page.called("search", json!([QUERY, { "k": 8 }])).await?;

    until_generation(&server, &mut world, loaded).await?;
    let (manifest, state) = server.api.newest_version().await?;
    let TextEncoderKind::Changed { base, change } =
        given(&server, manifest.encoder_generation).await?
    else {
        anyhow::bail!("what was learned is a change");
    };
    assert_eq!(base, file, "which pages have");
    println!("{} bytes beside {}", change.bytes, base.bytes);
    ensure!(change.bytes < base.bytes / 2);

    let read = PackedEncoder::from_bytes(server.api.blob(base.id).await?)?;
    let change_bytes = server.api.blob(change.id).await?;
    let learned = LowRankChange::from_packed_bytes(&change_bytes, base.id, &read.config)?;
    let changed = read.clone().changed_by(&learned)?;
    let distances = [read, changed].map(|encoder| distance(encoder, &state, &world.items));
    let [without, with] = distances;
    let (without, with) = (without?, with?);
    println!("1 − cosine with rows of the version: {with} with the change, {without} without");
    ensure!(with < without, "the change brings nothing");

    page.has_version(manifest.version).await?;
    let ask = json!({ "k": 8, "history": [], "nowMillis": NOW_MILLIS });
    let found = page.called("search", json!([QUERY, ask])).await?;
    let body = json!({ "text": QUERY, "k": 8, "history": [], "now": NOW_MILLIS }).to_string();
    let answer = server.api.send(Method::POST, "/v1/search", body).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let expected: &Vec<Value> = answer.body["items"].as_array().context("items")?;
    for (place, expected) in expected.iter().enumerate() {
        let actual = &found["items"][place];
        assert_eq!(actual["itemId"], expected["item_id"], "place {place}");
        let similarity = expected["similarity"].as_f64().context("a number")?;
        check_close(TOLERANCE, similarity, &actual["similarity"])?;
    }
    assert_eq!(page.uncaught().await?, Vec::<String>::new());
    browser.close().await
}
