//! Claims about the loop: what people do over HTTP changes what their pages rank, for the better.

use std::collections::BTreeMap;

use burn::tensor::Device;
use harness::native_page::NativePage;
use harness::people::{Person, World};
use harness::ranking::place_of;
use harness::scene::{HOUR_MILLIS, NOW_MILLIS, START_MILLIS, Scene};
use harness::server::{Server, Setup};
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::{RankOptions, RankRequest, RankedItem, ReadyVersion};
use shared_model::event::Event;
use shared_model::ids::ItemId;
use shared_model::model::scorer::Padding;

/// Items that someone looks at.
const SHOWN: usize = 10;
/// Rounds of clicks after the drift, and the event time between two.
const NUM_ROUNDS: usize = 12;
const ROUND_MILLIS: i64 = 8 * 3_600_000;
/// Clicks from before this time say nothing about fashion.
const FASHION_MILLIS: i64 = 6 * ROUND_MILLIS;
/// Factor by which a hit rate counts as higher: 480 questions leave a spread of about a tenth of the rate.
const CLEARLY_MORE: f64 = 1.3;

#[tokio::test(flavor = "multi_thread")]
async fn one_click_posted_over_http_changes_what_a_page_ranks() -> anyhow::Result<()> {
    let mut scene = Scene::start(1, &[("clock.mode", "event_time")]).await?;
    let (server, num_items) = (&scene.server, scene.world.items.len());
    let status = server.has_learned_all().await?;
    let mut page = NativePage::open(server.address()).await?;
    page.has_learned(status.log_offset).await?;

    let history = scene.people[0].history.clone();
    let before = page.rank(&history, num_items, NOW_MILLIS).await?;
    let clicked = before.items[num_items / 2].item_id.clone();
    let person = &mut scene.people[0];
    let event = scene.world.click(person, &clicked, NOW_MILLIS);
    let receipt = server.api.post_events(&[event]).await?;
    page.has_learned(receipt.offset).await?;

    let after = page.rank(&history, num_items, NOW_MILLIS).await?;
    assert!(after.model_version > before.model_version);
    let places = [&before, &after].map(|ranking| place_of(&ranking.items, &clicked));
    println!(
        "one click moved an item from place {} to place {} of {num_items}",
        places[0], places[1]
    );
    assert!(places[1] < places[0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_began_with_two_items_learns_a_catalogue_and_a_past_that_come_later()
-> anyhow::Result<()> {
    let mut world = World::new(3);
    let mut people = world.people(30);
    let past = world.past(&mut people, 10, HOUR_MILLIS, START_MILLIS);
    let setup = Setup::default()
        .set("clock.mode", "event_time")
        .set("release.interval_events", "100");
    let server = Server::start(setup).await?;
    server.api.put_items(&world.items[..2]).await?;
    let mut visitor = world.people(1).remove(0);
    let first = world.items[0].item_id.clone();
    for _ in 0..3 {
        let click = world.click(&mut visitor, &first, START_MILLIS - 20 * HOUR_MILLIS);
        server.api.post_events(&[click]).await?;
        server.has_learned_all().await?;
    }
    server.api.put_items(&world.items).await?;
    for batch in past.chunks(100) {
        server.api.post_events(batch).await?;
    }
    server.has_learned_all().await?;
    let ranking = server
        .api
        .recommend(&people[0].history, world.items.len(), NOW_MILLIS)
        .await?;
    assert_eq!(ranking.items.len(), world.items.len());
    Ok(())
}

/// Share of people who found what they wanted among the items shown.
#[derive(Debug, Default, Clone, Copy)]
struct HitRate {
    num_hits: u32,
    num_asked: u32,
}

impl HitRate {
    fn count(&mut self, shown: &[RankedItem], wanted: &ItemId) {
        self.num_asked += 1;
        self.num_hits += u32::from(place_of(shown, wanted) < SHOWN);
    }

    fn share(self) -> f64 {
        f64::from(self.num_hits) / f64::from(self.num_asked.max(1))
    }
}

/// The order of how often items were clicked in the last two days, up to date at every moment: a counter that follows
/// fashion as fast as the loop does, and knows nothing of taste.
struct Popularity {
    clicks: Vec<(ItemId, i64)>,
}

impl Popularity {
    fn count(&mut self, events: &[Event]) {
        let clicks = events
            .iter()
            .map(|event| (event.item_id.clone(), event.occurred_at));
        self.clicks.extend(clicks);
    }

    fn shown(&self, now_millis: i64) -> Vec<RankedItem> {
        let mut counts: BTreeMap<&ItemId, u32> = BTreeMap::new();
        let is_recent = |(_, at): &&(ItemId, i64)| now_millis - at <= FASHION_MILLIS;
        for (item_id, _) in self.clicks.iter().filter(is_recent) {
            *counts.entry(item_id).or_default() += 1;
        }
        let mut order: Vec<_> = counts.into_iter().collect();
        order.sort_by_key(|(_, num_clicks)| std::cmp::Reverse(*num_clicks));
        let shown = order.into_iter().take(SHOWN);
        let ranked = shown.map(|(item_id, num_clicks)| RankedItem {
            item_id: item_id.clone(),
            score: num_clicks as f32, // some hundred clicks
        });
        ranked.collect()
    }
}

/// What a page would show that never heard of a second version.
struct Frozen {
    state: CodeState,
    ready: ReadyVersion,
}

impl Frozen {
    fn new(state: &CodeState) -> Self {
        let ready = ReadyVersion::new(state, &Device::flex(), Padding::Longest);
        let state = state.clone();
        Self { state, ready }
    }

    async fn shown(&self, person: &Person, now_millis: i64) -> anyhow::Result<Vec<RankedItem>> {
        let options = RankOptions {
            k: SHOWN,
            exclude_seen: false,
        };
        let request = RankRequest {
            history: &person.history,
            candidates: None,
            options: &options,
            now_millis,
            moderation: None,
        };
        Ok(self.ready.rank(&self.state, &request).await?)
    }
}

/// Three rankings shown to the same people at the same moments.
struct Contest {
    page: NativePage,
    frozen: Frozen,
    popularity: Popularity,
}

/// Hit rates of one round.
#[derive(Debug, Default, Clone, Copy)]
struct Round {
    page: HitRate,
    frozen: HitRate,
    popularity: HitRate,
}

impl Contest {
    /// Everyone wants something, looks at the three rankings for it, and clicks it wherever it was found.
    async fn round(
        &mut self,
        world: &mut World,
        people: &mut [Person],
        now_millis: i64,
    ) -> anyhow::Result<(Round, Vec<Event>)> {
        let (mut round, mut events) = (Round::default(), Vec::new());
        for person in people {
            let wanted = world.wanted(person);
            let ranking = self.page.rank(&person.history, SHOWN, now_millis).await?;
            round.page.count(&ranking.items, &wanted);
            let frozen = self.frozen.shown(person, now_millis).await?;
            round.frozen.count(&frozen, &wanted);
            let popular = self.popularity.shown(now_millis);
            round.popularity.count(&popular, &wanted);
            events.push(world.click(person, &wanted, now_millis));
        }
        self.popularity.count(&events);
        Ok((round, events))
    }
}

fn mean(rounds: &[Round], who: impl Fn(&Round) -> HitRate) -> f64 {
    let shares = rounds.iter().map(|round| who(round).share());
    shares.sum::<f64>() / rounds.len() as f64 // a dozen
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_find_more_of_what_drifting_people_want_than_popularity_and_than_their_first_version()
-> anyhow::Result<()> {
    let mut world = World::new(2);
    let mut people = world.people(80);
    let past = world.past(&mut people, 30, ROUND_MILLIS, START_MILLIS);
    let setup = Setup::default()
        .with_log(&world.items, &past)
        .set("clock.mode", "event_time")
        .set("model.embedding_dim", "32")
        .set("train.warm_epochs", "10")
        .set("train.warm_batch_size", "8");
    let server = Server::start(setup).await?;
    let status = server.has_learned_all().await?;
    let mut page = NativePage::open(server.address()).await?;
    page.has_learned(status.log_offset).await?;
    let frozen = Frozen::new(&page.live()?.state);
    let mut popularity = Popularity { clicks: Vec::new() };
    popularity.count(&past);
    let mut contest = Contest {
        page,
        frozen,
        popularity,
    };

    // From now on other items are the favourites, and half of the people have another taste.
    world.change_fashion();
    for person in people.iter_mut().step_by(2) {
        world.change_taste(person);
    }
    let mut rounds = Vec::new();
    for round_idx in 0..NUM_ROUNDS {
        let now_millis = START_MILLIS + (round_idx as i64 + 1) * ROUND_MILLIS; // a dozen rounds
        let (round, events) = contest.round(&mut world, &mut people, now_millis).await?;
        let receipt = server.api.post_events(&events).await?;
        contest.page.has_learned(receipt.offset).await?;
        let shares = [round.page, round.frozen, round.popularity].map(HitRate::share);
        println!("round {round_idx:2}: hit rates of page, frozen and popularity {shares:.3?}");
        rounds.push(round);
    }

    let (early, late) = (&rounds[..2], &rounds[NUM_ROUNDS / 2..]);
    let page = mean(late, |round| round.page);
    let frozen = mean(late, |round| round.frozen);
    let popularity = mean(late, |round| round.popularity);
    println!("in the second half: page {page:.3}, frozen {frozen:.3}, popularity {popularity:.3}");
    let rose_from = mean(early, |round| round.page);
    assert!(
        page > rose_from * CLEARLY_MORE,
        "it rose from {rose_from} only"
    );
    assert!(
        page > frozen * CLEARLY_MORE,
        "its own first version finds {frozen}"
    );
    assert!(
        page > popularity * CLEARLY_MORE,
        "popularity finds {popularity}"
    );
    Ok(())
}
