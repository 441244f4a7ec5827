//! Items whose share of clicks or of exposure rises fast, against their own past.
//!
//! Time goes in windows of `moderation.burst_window_secs`. At the end of one, an item `i` with `n_i` of its `N` clicks (and
//! likewise impressions) stands out where
//!
//! ```text
//! n_i ≥ burst_events_min   and   n_i / N ≥ burst_factor · (p_i + 1) / (P + m)
//! ```
//! with `p_i` of the `P` clicks of earlier windows, which fade by half in a day's worth of [`HALF_LIFE_WINDOWS`], over `m`
//! items: a new item is taken for one with a single click. Nothing stands out before the past has
//! [`PAST_EVENTS`]` · burst_events_min` clicks. It is a question to people and no verdict: a good new item rises as fast.
//! Counts are in memory alone; after a start the past is gathered anew.

use std::collections::HashMap;

use shared_model::event::EventKind;
use shared_model::ids::ItemId;

use crate::config::ModerationConfig;

/// Windows in which what was counted fades by half: a day of five minutes each.
const HALF_LIFE_WINDOWS: f64 = 288.0;
/// Past events that are wanted for a comparison, as a multiple of `burst_events_min`.
const PAST_EVENTS: f64 = 10.0;
/// Items that are counted one by one, some 10 MB; the rest count towards the sum alone.
const ITEMS_MAX: usize = 65_536;
/// Faded counts below this are forgotten.
const FADED: f64 = 0.5;

/// Counts of one kind.
#[derive(Debug, Default)]
struct Share {
    now: HashMap<ItemId, u32>,
    num_now: u64,
    past: HashMap<ItemId, f64>,
    num_past: f64,
}

/// Counts of this window and of the past.
#[derive(Debug)]
pub(super) struct Bursts {
    window_millis: i64,
    events_min: u32,
    factor: f64,
    ends_at: i64,
    clicks: Share,
    exposure: Share,
}

/// An item that stands out, and why.
#[derive(Debug, PartialEq)]
pub(super) struct Burst {
    pub(super) item_id: ItemId,
    pub(super) evidence: String,
}

impl Bursts {
    pub(super) fn new(config: &ModerationConfig, now_millis: i64) -> Self {
        let window_secs = i64::from(config.burst_window_secs);
        Self {
            window_millis: window_secs * 1000,
            events_min: config.burst_events_min,
            factor: config.burst_factor,
            ends_at: now_millis.saturating_add(window_secs * 1000),
            clicks: Share::default(),
            exposure: Share::default(),
        }
    }

    pub(super) fn count(&mut self, item_id: &ItemId, kind: EventKind) {
        if self.window_millis == 0 {
            return;
        }
        match kind {
            EventKind::Impression => self.exposure.count(item_id),
            EventKind::View
            | EventKind::Click
            | EventKind::AddToCart
            | EventKind::Purchase
            | EventKind::Like
            | EventKind::Watch => self.clicks.count(item_id),
            EventKind::Dislike | EventKind::Rating | EventKind::Skip => {}
        }
    }

    /// What stood out in a window that has ended by now.
    pub(super) fn ended(&mut self, now_millis: i64) -> Vec<Burst> {
        if self.window_millis == 0 || now_millis < self.ends_at {
            return Vec::new();
        }
        self.ends_at = now_millis.saturating_add(self.window_millis);
        let (events_min, factor) = (self.events_min, self.factor);
        let mut bursts = self.clicks.end("clicks", events_min, factor);
        bursts.extend(self.exposure.end("impressions", events_min, factor));
        bursts
    }
}

impl Share {
    fn count(&mut self, item_id: &ItemId) {
        self.num_now += 1;
        if let Some(num) = self.now.get_mut(item_id) {
            *num += 1;
        } else if self.now.len() < ITEMS_MAX {
            self.now.insert(item_id.clone(), 1);
        }
    }

    fn end(&mut self, what: &str, events_min: u32, factor: f64) -> Vec<Burst> {
        let bursts = self.standing_out(what, events_min, factor);
        let fading = 0.5_f64.powf(1.0 / HALF_LIFE_WINDOWS);
        self.num_past = self.num_past * fading + self.num_now as f64; // far below 2^53
        self.num_now = 0;
        self.past.retain(|_, num| {
            *num *= fading;
            *num >= FADED
        });
        for (item_id, num) in self.now.drain() {
            if self.past.len() < ITEMS_MAX || self.past.contains_key(&item_id) {
                *self.past.entry(item_id).or_insert(0.0) += f64::from(num);
            }
        }
        bursts
    }

    fn standing_out(&self, what: &str, events_min: u32, factor: f64) -> Vec<Burst> {
        if self.num_past < PAST_EVENTS * f64::from(events_min) {
            return Vec::new();
        }
        let num_items = self.past.len() as f64; // at most ITEMS_MAX
        let mut bursts: Vec<Burst> = Vec::new();
        for (item_id, num) in self.now.iter().filter(|(_, num)| **num >= events_min) {
            let num_before = self.past.get(item_id).copied().unwrap_or(0.0);
            let share_before = (num_before + 1.0) / (self.num_past + num_items);
            let share = f64::from(*num) / self.num_now as f64; // far below 2^53
            if share >= factor * share_before {
                let evidence = format!(
                    "{num} of {} {what} in the last window ({:.2} %), {num_before:.0} of {:.0} before ({:.2} %)",
                    self.num_now,
                    100.0 * share,
                    self.num_past,
                    100.0 * share_before,
                );
                bursts.push(Burst {
                    item_id: item_id.clone(),
                    evidence,
                });
            }
        }
        bursts.sort_unstable_by(|a, b| a.item_id.cmp(&b.item_id));
        bursts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(idx: usize) -> ItemId {
        ItemId::new(format!("i{idx}")).expect("short")
    }

    fn bursts(window_secs: u32) -> Bursts {
        let config = ModerationConfig {
            approvals: 1,
            review_attribute: String::new(),
            burst_window_secs: window_secs,
            burst_events_min: 20,
            burst_factor: 5.0,
        };
        Bursts::new(&config, 0)
    }

    fn clicks(bursts: &mut Bursts, item_idx: usize, num: usize) {
        for _ in 0..num {
            bursts.count(&item(item_idx), EventKind::Click);
        }
    }

    /// Ten items, one of which is clicked ten times as often as the others; windows end at each second.
    fn with_past(bursts: &mut Bursts) {
        for window in 1..=10 {
            for idx in 0..10 {
                clicks(bursts, idx, if idx == 0 { 20 } else { 2 });
            }
            assert_eq!(bursts.ended(1000 * window), []);
        }
    }

    #[test]
    fn an_item_stands_out_against_its_own_past_and_a_popular_one_does_not() {
        let mut bursts = bursts(1);
        with_past(&mut bursts);
        clicks(&mut bursts, 0, 40);
        clicks(&mut bursts, 7, 40);
        clicks(&mut bursts, 9, 19);
        let found = bursts.ended(11_000);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].item_id, item(7));
        assert_eq!(
            found[0].evidence,
            "40 of 99 clicks in the last window (40.40 %), 20 of 376 before (5.39 %)"
        );
        assert_eq!(bursts.ended(11_500), [], "the window has not ended");
    }

    #[test]
    fn nothing_stands_out_without_a_past_or_where_it_is_switched_off() {
        let mut fresh = bursts(1);
        clicks(&mut fresh, 1, 199);
        assert_eq!(fresh.ended(1000), []);
        clicks(&mut fresh, 2, 100);
        assert_eq!(
            fresh.ended(2000),
            [],
            "199 clicks are below ten times twenty"
        );
        let mut off = bursts(0);
        clicks(&mut off, 1, 1000);
        assert_eq!((off.clicks.num_now, off.ended(i64::MAX)), (0, vec![]));
    }

    #[test]
    fn impressions_are_a_share_of_their_own_and_dislikes_are_none() {
        let mut bursts = bursts(1);
        with_past(&mut bursts);
        for _ in 0..100 {
            bursts.count(&item(3), EventKind::Impression);
            bursts.count(&item(4), EventKind::Dislike);
        }
        assert_eq!(bursts.ended(11_000), [], "impressions have no past yet");
        assert_eq!(bursts.exposure.past.get(&item(3)), Some(&100.0));
        assert!(!bursts.clicks.now.contains_key(&item(4)));
    }
}
