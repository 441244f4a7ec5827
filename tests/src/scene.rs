//! What most tests start from: a world with a past, and a server that has learned it.

use std::time::Duration;

use anyhow::{Context, ensure};
use shared_model::ids::Version;

use crate::browser::BrowserPage;
use crate::people::{Person, World};
use crate::ranking::check_alike;
use crate::root::Root;
use crate::server::{Server, Setup};
use crate::wait;

/// Event time at which the past ends.
pub const START_MILLIS: i64 = 1_700_000_000_000;
/// Time between two rounds of events.
pub const HOUR_MILLIS: i64 = 3_600_000;
/// A moment after everything that [`Scene::clicks`] posts.
pub const NOW_MILLIS: i64 = START_MILLIS + 2 * HOUR_MILLIS;

/// Longest time that page and server may disagree on the version while one is on its way.
const SAME_VERSION_PATIENCE: Duration = Duration::from_secs(30);
/// Items compared between page and server.
const TOP: usize = 10;

/// A world, its people, and the server that learns from them.
pub struct Scene {
    /// Catalogue and fashions.
    pub world: World,
    /// Twenty people, each with ten clicks.
    pub people: Vec<Person>,
    /// The server; its first version comes from a warm fit on the past.
    pub server: Server,
}

impl Scene {
    /// # Errors
    /// The server does not start or does not learn.
    pub async fn start(seed: u64, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(seed, settings, Setup::default()).await
    }

    /// Like [`Self::start`], with a server whose keys `root` has signed.
    ///
    /// # Errors
    /// Likewise.
    pub async fn rooted(seed: u64, settings: &[(&str, &str)], root: &Root) -> anyhow::Result<Self> {
        Self::start_with(seed, settings, Setup::default().with_root(root)).await
    }

    async fn start_with(
        seed: u64,
        settings: &[(&str, &str)],
        setup: Setup<'_>,
    ) -> anyhow::Result<Self> {
        let mut world = World::new(seed);
        let mut people = world.people(20);
        let past = world.past(&mut people, 10, HOUR_MILLIS, START_MILLIS);
        let mut setup = setup.with_log(&world.items, &past);
        for (key, value) in settings {
            setup = setup.set(key, value);
        }
        let server = Server::start(setup).await?;
        server.has_learned_all().await?;
        Ok(Self {
            world,
            people,
            server,
        })
    }

    /// Some people click; answers with the newest version once it has learned that.
    ///
    /// # Errors
    /// The server does not take or learn it.
    pub async fn clicks(&mut self, num_clicks: usize) -> anyhow::Result<Version> {
        let mut events = Vec::with_capacity(num_clicks);
        for click_idx in 0..num_clicks {
            let person_idx = click_idx % self.people.len();
            let person = &mut self.people[person_idx];
            events.push(self.world.next_click(person, START_MILLIS + HOUR_MILLIS));
        }
        self.server.api.post_events(&events).await?;
        let status = self.server.has_learned_all().await?;
        status
            .version
            .context("a server that has learned has a version")
    }

    /// Compares the page's best items with the server's for `num_people`, each on one version.
    ///
    /// # Errors
    /// They differ by more than a near tie.
    pub async fn page_ranks_as_the_server(
        &self,
        page: &BrowserPage,
        num_people: usize,
    ) -> anyhow::Result<()> {
        for person in self.people.iter().take(num_people) {
            let what = "page and server rank with one version";
            let (expected, actual) = wait::until(what, SAME_VERSION_PATIENCE, async || {
                let api = &self.server.api;
                let expected = api.recommend(&person.history, TOP, NOW_MILLIS).await?;
                let actual = page.rank(&person.history, TOP, NOW_MILLIS).await?;
                let is_same = expected.model_version == actual.model_version;
                Ok(is_same.then_some((expected, actual)))
            })
            .await?;
            check_alike(&expected.items, &actual.items)?;
        }
        Ok(())
    }

    /// Checks that the codes in the page, read out of its cache and hashed here, are those of the newest version.
    ///
    /// # Errors
    /// They are not.
    pub async fn page_holds_the_newest_codes(&self, page: &BrowserPage) -> anyhow::Result<()> {
        let (manifest, state) = self.server.api.newest_version().await?;
        page.has_version(manifest.version).await?;
        let cached = page.cached_version().await?;
        let (actual, expected) = (cached.version, manifest.version);
        ensure!(
            actual == expected,
            "cached is version {actual}, newest {expected}"
        );
        let hash = cached.state.hash();
        ensure!(
            hash == manifest.state,
            "the page's codes have another hash than the manifest"
        );
        ensure!(
            cached.state == state,
            "the page's codes are not the server's"
        );
        Ok(())
    }
}
