//! `publish.text_recipe` over HTTP: pages have the whole encoder first, then the smaller one, for every generation; and
//! the whole one for good where the gate refuses the smaller.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use harness::people::World;
use harness::server::Server;
use harness::wait;
use reqwest::Method;
use serde_json::Value;
use shared_model::manifest::TextEncoderKind;
use shared_model::text::PackedEncoder;

use crate::over_http::{PATIENCE, setup, until_generation};

const RATE: &str = "0.01";
/// At which a change of low rank does for a student of made-up weights.
const SMALL_RATE: &str = "0.001";

/// A server whose text encoder learns at this rate, and which makes pages' encoders by `recipe`.
async fn server(dir: &Path, world: &mut World, recipe: &str, rate: &str) -> anyhow::Result<Server> {
    let recipe_path = dir.join("recipe.json");
    fs::write(&recipe_path, recipe)?;
    let recipe_path = recipe_path.to_str().context("a plain path")?;
    let setup = setup(dir, world)?
        .set("publish.text_recipe", recipe_path)
        .set("text_tuning.learning_rate", rate);
    Server::start(setup).await
}

/// What the status says of the recipe, once it is about this generation.
async fn followed(server: &Server, generation: u32) -> anyhow::Result<Value> {
    wait::until("the recipe was followed", PATIENCE, async || {
        let status = server.api.send(Method::GET, "/v1/status", "").await?;
        let told = status.body["text_recipe"].clone();
        Ok((told["generation"] == generation).then_some(told))
    })
    .await
    .with_context(|| server.log_text())
}

/// The encoder that a page is given for this generation.
async fn given(server: &Server, generation: u32) -> anyhow::Result<PackedEncoder> {
    let blob = wait::until("there is an encoder", PATIENCE, async || {
        server.api.text_encoder(generation).await
    })
    .await?;
    Ok(PackedEncoder::from_bytes(server.api.blob(blob.id).await?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_generation_follows_the_recipe_and_goes_on_from_the_one_before() -> anyhow::Result<()>
{
    let dir = tempfile::tempdir()?;
    let mut world = World::new(8);
    // Neurons of a tiny encoder are not worth their bytes: three quarters do nearly what all do.
    let recipe = r#"{"num_neurons":48,"distill_steps":200,"follow_steps":8,"bytes_max":200000}"#;
    let server = server(dir.path(), &mut world, recipe, RATE).await?;
    server.has_learned_all().await?;
    let (_, state) = server.api.newest_version().await?;
    let loaded = state.encoder_generation;
    let told = followed(&server, loaded).await?;
    ensure!(told["refused"] == serde_json::json!([]), "{told}");
    let smaller = wait::until("pages have the smaller one", PATIENCE, async || {
        let given = given(&server, loaded).await?;
        Ok((given.config.intermediate_size == 48).then_some(given))
    })
    .await?;
    assert_eq!(smaller.config.num_hidden_layers, 2);

    let state = until_generation(&server, &mut world, loaded).await?;
    let told = followed(&server, state.encoder_generation).await?;
    let log = server.log_text();
    ensure!(
        log.contains("goes_on=true") || log.contains("\"goes_on\":true"),
        "{told}\n{log}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_encoder_follows_by_a_change_beside_its_file_and_a_restart_finds_both()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut world = World::new(8);
    let recipe = r#"{"num_neurons":48,"distill_steps":200,"follow_steps":100,"follow_rank":4,"bytes_max":200000}"#;
    let mut server = server(dir.path(), &mut world, recipe, SMALL_RATE).await?;
    server.has_learned_all().await?;
    let (_, state) = server.api.newest_version().await?;
    let loaded = state.encoder_generation;
    followed(&server, loaded).await?;
    let file = wait::until("pages have the smaller one", PATIENCE, async || {
        let Some(blob) = server.api.text_encoder(loaded).await? else {
            return Ok(None);
        };
        let read = PackedEncoder::from_bytes(server.api.blob(blob.id).await?)?;
        Ok((read.config.intermediate_size == 48).then_some(blob))
    })
    .await?;

    let state = until_generation(&server, &mut world, loaded).await?;
    let generation = state.encoder_generation;
    let told = followed(&server, generation).await?;
    let log = server.log_text();
    ensure!(told["refused"] == serde_json::json!([]), "{told}\n{log}");
    let is_followed = async |server: &Server| {
        wait::until("pages have the change", PATIENCE, async || {
            match server.api.text_encoder_kind(generation).await? {
                Some(TextEncoderKind::Changed { base, change }) if base == file => Ok(Some(change)),
                _ => Ok(None),
            }
        })
        .await
    };
    let change = is_followed(&server).await?;
    assert_eq!(told["bytes"], change.bytes);
    ensure!(change.bytes < file.bytes / 2, "{change:?} beside {file:?}");

    server.kill9().await?;
    server.restart().await?;
    let (_, state) = server.api.newest_version().await?;
    assert_eq!(
        state.encoder_generation, generation,
        "nothing was posted since"
    );
    assert_eq!(is_followed(&server).await?, change);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_keep_the_whole_encoder_where_the_gate_refuses_the_smaller_one() -> anyhow::Result<()>
{
    let dir = tempfile::tempdir()?;
    let mut world = World::new(8);
    let recipe = r#"{"num_layers":1,"num_neurons":1,"num_heads":1,"bytes_max":200000}"#;
    let mut server = server(dir.path(), &mut world, recipe, RATE).await?;
    server.has_learned_all().await?;
    let (_, state) = server.api.newest_version().await?;
    let told = followed(&server, state.encoder_generation).await?;
    let refused = told["refused"].as_array().context("reasons")?;
    ensure!(!refused.is_empty(), "{told}");
    let whole = given(&server, state.encoder_generation).await?;
    assert_eq!(whole.config.num_hidden_layers, 2);
    assert!(
        server
            .log_text()
            .contains("pages keep the whole text encoder")
    );

    // The file of before is found, and nothing is tried again.
    server.kill9().await?;
    server.restart().await?;
    let again = given(&server, state.encoder_generation).await?;
    assert_eq!(again.to_bytes()?, whole.to_bytes()?);
    let status = server.api.send(Method::GET, "/v1/status", "").await?;
    assert_eq!(status.body["text_recipe"], Value::Null);
    Ok(())
}
