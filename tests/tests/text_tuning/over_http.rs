//! The same over HTTP: pages follow a new generation of the encoder, and a server that was killed goes on with it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::native_page::NativePage;
use harness::people::World;
use harness::scene::{HOUR_MILLIS, START_MILLIS};
use harness::server::{Server, Setup};
use harness::tiny_encoder::write_tiny_encoder;
use shared_model::codec::state::CodeState;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Posts what people do until a release with another encoder generation than `base` is out.
pub(crate) async fn until_generation(
    server: &Server,
    world: &mut World,
    base: u32,
) -> anyhow::Result<CodeState> {
    let mut people = world.people(20);
    let mut now = START_MILLIS + HOUR_MILLIS;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        ensure!(
            std::time::Instant::now() < deadline,
            "no new generation: {}",
            server.api.status().await?.trainer
        );
        now += HOUR_MILLIS;
        let events: Vec<_> = people
            .iter_mut()
            .map(|person| world.next_click(person, now))
            .collect();
        server.api.post_events(&events).await?;
        server.has_learned_all().await?;
        let (_, state) = server.api.newest_version().await?;
        if state.encoder_generation != base {
            return Ok(state);
        }
    }
}

/// A server with a past whose text encoder, of which the files are put into `dir`, learns in rounds of three steps.
pub(crate) fn setup(dir: &Path, world: &mut World) -> anyhow::Result<Setup<'static>> {
    write_tiny_encoder(dir)?;
    let encoder_dir = dir.to_str().context("a plain path")?;
    let mut people = world.people(30);
    let past = world.past(&mut people, 8, HOUR_MILLIS, START_MILLIS);
    Ok(Setup::default()
        .with_log(&world.items, &past)
        .set("clock.mode", "event_time")
        .set("model.text_encoder", "pretrained")
        .set("model.text_encoder_dir", encoder_dir)
        .set("release.steps", "2")
        .set("release.interval_events", "40")
        .set("release.trial_events", "0") // whether texts that moved this far are better is not the question
        .set("text_tuning.steps", "3")
        .set("text_tuning.learning_rate", "0.01")
        .set("text_tuning.move_min", "0.00001"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_a_new_generation_and_a_killed_server_goes_on_with_it() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut world = World::new(8);
    let setup = setup(dir.path(), &mut world)?;
    let mut server = Server::start(setup).await?;
    let mut page = NativePage::open(server.address()).await?;
    let status = server.has_learned_all().await?;
    page.has_learned(status.log_offset).await?;
    let loaded = page.live()?.state.encoder_generation;
    until_generation(&server, &mut world, loaded).await?;

    server.kill9().await?;
    server.restart().await?;
    let status = server.has_learned_all().await?;
    let (_, state) = server.api.newest_version().await?;
    assert_ne!(state.encoder_generation, loaded);
    // The page checks the hash of every version on its way here.
    page.has_learned(status.log_offset).await?;
    assert_ne!(page.live()?.state.encoder_generation, loaded);
    let name = format!("text-encoder-{:08x}.safetensors", state.encoder_generation);
    assert!(server.data_dir().join(&name).is_file(), "{name}");
    until_generation(&server, &mut world, state.encoder_generation).await?;
    Ok(())
}
