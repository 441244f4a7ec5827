//! Steady phase: a constant background of events, and planted ones whose effect is timed.
//!
//! A plant: some new users with one and the same history take an item that ranks far down for that
//! history. The clock runs from the acknowledgement of their events to the moment at which `rank()`
//! in a page, on a version that learned any of them, shows the item risen further than 99 % of all items that
//! were far down with it. These are the control: background events and releases move them too.
//! An effect that does not arrive within [`EFFECT_SECS_MAX`](super::effect::EFFECT_SECS_MAX) counts as
//! that long, and as lost.
//!
//! Ranking pages rank after every version they apply. Following pages build no scorer, to leave the
//! cores to the server: they are timed by when they applied the version in which a ranking page saw
//! the effect, which is the same codes and therefore the same ranking.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shared_model::event::{Event, EventKind, HistoryEvent};
use shared_model::ids::{ItemId, UserId};

use super::ReplayError;
use super::api::ServerApi;
use super::background::{Background, BackgroundOutcome, EventClock};
use super::browser::BrowserPage;
use super::effect::{
    Acked, Before, FAR_DOWN, PlantOutcome, Probe, far_down_from, rank_all, wait_for_browser,
    wait_for_effect,
};
use crate::baselines::timelines::Timelines;
use crate::dataset::Dataset;
use crate::page_client::{Applied, PageClient};

/// Users who take the planted item: few beside the 200 events of a second, enough to rise above their control.
const NUM_PLANTED_USERS: usize = 10;
/// Events in the history that they share.
const PROBE_LEN: usize = 5;
/// Time from one plant to the next, if its effect is there by then.
const PLANT_EVERY: Duration = Duration::from_secs(2);

/// How long and how fast.
#[derive(Debug, Clone)]
pub struct SteadyOptions {
    /// Length of the phase; the last plant may run over.
    pub secs: u64,
    /// Background events per second.
    pub rate: f64,
    /// Seed of every choice.
    pub seed: u64,
    /// Start of every event id.
    pub run_id: String,
}

/// What the phase found.
#[derive(Debug, Clone)]
pub struct SteadyOutcome {
    /// One per plant.
    pub plants: Vec<PlantOutcome>,
    /// What was posted beside them.
    pub background: BackgroundOutcome,
    /// Versions that became live in each ranking page.
    pub applied: Vec<Vec<Applied>>,
    /// Bytes that the first page downloaded meanwhile.
    pub downloaded_bytes: u64,
    /// Duration.
    pub secs: f64,
}

/// Everything the phase works with.
pub struct Steady<'a> {
    /// The whole dataset.
    pub dataset: &'a Arc<Dataset>,
    /// Histories at the end of the stream.
    pub timelines: &'a Timelines,
    /// Ranking pages, at least one.
    pub pages: &'a mut [PageClient],
    /// Chromium pages, if any.
    pub browsers: &'a [BrowserPage],
    /// The server.
    pub api: &'a ServerApi,
    /// Shows how far it is, in plants.
    pub progress: ProgressBar,
}

impl Steady<'_> {
    /// Runs the phase.
    ///
    /// # Errors
    /// The server refused a batch or went away for good, or a device failed.
    pub async fn run(&mut self, options: &SteadyOptions) -> Result<SteadyOutcome, ReplayError> {
        let clock = EventClock::after(self.dataset);
        let background = Background::start(self.api, self.dataset, clock, options);
        let started_at = Instant::now();
        let downloaded_before = self
            .pages
            .first()
            .map_or(0, |page| page.downloads().total_bytes());
        let mut phase = Phase {
            clock,
            rng: StdRng::seed_from_u64(options.seed),
            run_id: options.run_id.clone(),
            used_items: HashSet::new(),
            applied: vec![Vec::new(); self.pages.len()],
            num_posted: 0,
        };
        let mut plants = Vec::new();
        while started_at.elapsed().as_secs() < options.secs {
            let history = self.post_histories(&mut phase, plants.len()).await?;
            let due = started_at + PLANT_EVERY * (plants.len() as u32 + 1); // fits: a plant every two seconds
            self.follow_until(due.max(Instant::now() + PLANT_EVERY / 2), &mut phase)
                .await;
            if let Some(outcome) = self.plant(&mut phase, history).await? {
                plants.push(outcome);
            }
            self.progress.set_position(plants.len() as u64); // usize fits u64
        }
        self.progress.finish();
        let downloaded_after = self
            .pages
            .first()
            .map_or(0, |page| page.downloads().total_bytes());
        Ok(SteadyOutcome {
            plants,
            background: background.stop().await,
            applied: phase.applied,
            downloaded_bytes: downloaded_after - downloaded_before,
            secs: started_at.elapsed().as_secs_f64(),
        })
    }

    /// Gives new users the recent history of a real one.
    async fn post_histories(
        &self,
        phase: &mut Phase,
        plant_idx: usize,
    ) -> Result<Probe, ReplayError> {
        let users = (0..NUM_PLANTED_USERS)
            .map(|user| UserId::new(format!("{}-planted-{plant_idx}-{user}", phase.run_id)))
            .collect::<Result<Vec<_>, _>>()?;
        let history = self.probe_history(phase);
        let mut events = Vec::new();
        for user_id in &users {
            for seen in &history {
                events.push(self.event(phase, user_id, &seen.item_id, seen.occurred_at)?);
            }
        }
        self.api.post_events(&events).await?;
        let item_id = history
            .last()
            .map(|seen| seen.item_id.clone())
            .ok_or(ReplayError::NoProbe)?;
        Ok(Probe {
            item_id,
            history,
            users,
        })
    }

    /// The last items of a random user who has enough of them, as if taken just now.
    fn probe_history(&self, phase: &mut Phase) -> Vec<HistoryEvent> {
        let num_users = self.dataset.users.len() as u32; // fits: users are counted in 32 bits
        let mut seen = self.timelines.of_user(phase.rng.random_range(0..num_users));
        for _ in 0..1000 {
            if seen.len() >= PROBE_LEN {
                break;
            }
            seen = self.timelines.of_user(phase.rng.random_range(0..num_users));
        }
        let recent = &seen[seen.len().saturating_sub(PROBE_LEN)..];
        let first_at = phase.clock.now_millis() - 1000 * PROBE_LEN as i64; // a handful
        recent
            .iter()
            .zip(0..)
            .map(|(seen, position)| HistoryEvent {
                item_id: self.dataset.items[seen.item_idx as usize].item_id.clone(),
                kind: self.dataset.kind,
                occurred_at: first_at + 1000 * position,
            })
            .collect()
    }

    /// Chooses the item, posts the events and times their effect; `None` where no item is far enough down.
    async fn plant(
        &mut self,
        phase: &mut Phase,
        mut probe: Probe,
    ) -> Result<Option<PlantOutcome>, ReplayError> {
        let now_millis = phase.clock.now_millis();
        let Some(item_id) = self.choose_item(phase, &probe, now_millis).await? else {
            return Ok(None);
        };
        probe.item_id = item_id;
        let mut befores = Vec::with_capacity(self.pages.len());
        for page in self.pages.iter_mut() {
            let ranking = rank_all(page, &probe.history, now_millis).await?;
            befores.push(Before::new(&ranking, &probe.item_id));
        }
        for browser in self.browsers {
            browser
                .arm(&probe.history, &probe.item_id, FAR_DOWN, now_millis)
                .await?;
        }

        let mut events = Vec::new();
        for user_id in &probe.users {
            events.push(self.event(phase, user_id, &probe.item_id, phase.clock.now_millis())?);
        }
        let receipt = self.api.post_events(&events).await?;
        let acked = Acked::now(receipt.offset, events.len());

        let (probe, clock) = (&probe, phase.clock);
        let pages = self.pages.iter_mut().zip(&befores);
        let native = join_all(
            pages.map(|(page, before)| wait_for_effect(page, probe, before, acked, clock)),
        );
        let browsers = join_all(
            self.browsers
                .iter()
                .map(|browser| wait_for_browser(browser, acked)),
        );
        let (native, browsers) = tokio::join!(native, browsers);
        let position_before = befores.first().map_or(0, |before| before.position);
        let mut outcome = PlantOutcome {
            acked_at: acked.at,
            position_before,
            position_after: position_before,
            learned_secs: None,
            effect_secs: Vec::with_capacity(befores.len()),
            browser_secs: browsers.into_iter().collect::<Result<_, _>>()?,
            effective_version: None,
        };
        for (page_idx, effect) in native.into_iter().enumerate() {
            let effect = effect?;
            if page_idx == 0 {
                outcome.position_after = effect.position_after.unwrap_or(position_before);
                outcome.learned_secs = effect.learned_secs;
            }
            phase.applied[page_idx].extend(effect.applied);
            outcome.effect_secs.push(effect.secs);
            outcome.effective_version = effect
                .version
                .into_iter()
                .chain(outcome.effective_version)
                .min();
        }
        Ok(Some(outcome))
    }

    /// A random item that ranks far down for the probe and was not planted before.
    async fn choose_item(
        &mut self,
        phase: &mut Phase,
        probe: &Probe,
        now_millis: i64,
    ) -> Result<Option<ItemId>, ReplayError> {
        let Some(first) = self.pages.first_mut() else {
            return Ok(None);
        };
        let ranking = rank_all(first, &probe.history, now_millis).await?;
        let far_down = ranking
            .get(far_down_from(ranking.len())..)
            .unwrap_or_default();
        let unused: Vec<&ItemId> = far_down
            .iter()
            .filter(|item_id| !phase.used_items.contains(*item_id))
            .collect();
        let chosen = unused
            .choose(&mut phase.rng)
            .map(|item_id| (*item_id).clone());
        phase.used_items.extend(chosen.clone());
        Ok(chosen)
    }

    async fn follow_until(&mut self, due: Instant, phase: &mut Phase) {
        let pages = self.pages.iter_mut().zip(&mut phase.applied);
        join_all(pages.map(|(page, applied)| follow(page, applied, due))).await;
    }

    fn event(
        &self,
        phase: &mut Phase,
        user_id: &UserId,
        item_id: &ItemId,
        occurred_at: i64,
    ) -> Result<Event, ReplayError> {
        phase.num_posted += 1;
        let kind = self.dataset.kind;
        Ok(Event {
            event_id: super::event_id(&phase.run_id, "plant", phase.num_posted)?,
            kind,
            user_id: user_id.clone(),
            item_id: item_id.clone(),
            occurred_at,
            value: match kind {
                EventKind::Rating => Some(10.0),
                EventKind::Purchase => Some(1.0),
                EventKind::Impression
                | EventKind::View
                | EventKind::Click
                | EventKind::AddToCart
                | EventKind::Like
                | EventKind::Dislike
                | EventKind::Skip
                | EventKind::Watch => None,
            },
            model_version: None,
            impression_id: None,
            position: None,
            propensity: None,
            arm: None,
        })
    }
}

/// What moves on during the phase.
struct Phase {
    clock: EventClock,
    rng: StdRng,
    run_id: String,
    used_items: HashSet<ItemId>,
    applied: Vec<Vec<Applied>>,
    num_posted: usize,
}

async fn follow(page: &mut PageClient, applied: &mut Vec<Applied>, due: Instant) {
    while let Ok(version) = tokio::time::timeout_at(due.into(), page.next_version()).await {
        applied.push(version);
    }
}
