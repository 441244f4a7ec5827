//! Influence: how much one client may teach, and how much new ones may together.
//!
//! Input: events in log order, by client and item, with the server's own time of arrival, which no client chooses.
//! Output: how much of an event teaches, or why nothing does. One that does not stays in the log, acked, and in the
//! history of its client. The same log gives the same answers, so a restart and a refit learn the same.
//!
//! Sums halve every `half_life_secs`, those of bursts every `burst_half_life_secs`:
//!
//! ```text
//! s_c            events of client c that taught
//! mean           = Σ s_c / Σ 2^(−time since c was seen / half-life)
//! client, burst  s_c + 1 ≤ max(events_min, mean_factor·mean)
//! repeat         a kind once per client and item in item_repeat_secs, and item_kinds_max kinds
//! newcomers      new_i + 1 ≤ newcomer_floor + newcomer_factor·(1 + known_i)·new/known
//! few clients    nothing of item i before item_clients_min clients have acted on it
//! no token       nothing without a visit token, where `without_token` says so
//! share          1 − S_c/(share_factor·mean), at least 0
//! eager          eager_i + 1 ≤ eager_floor + eager_factor·(1 + calm_i)·eager/calm, half-life eager_half_life_secs
//! ```
//!
//! `new_i` and `known_i` are the events of newcomers and of all others that taught about item `i`, `new` and `known`
//! those about all items; `eager` and `calm` likewise, where a client is eager whose share is below a half.
//! `S_c` sums the shares of client `c`. The share weighs an event in the count of its item. Where more than usual about
//! an item comes from eager clients, they may act together, and what they do with it is learned from others.
//! All but `few clients` and `no token` hold from `clients_min` clients on: among fewer there is no usual client.
//!
//! Memory: 104 bytes per client, 88 per item, 16 per client, item and kind of the last `item_repeat_secs`, and 4 per
//! item and client below `item_clients_min`; timelines hold the same events in twice that.
//! Not here: requests of an address (`http::limiter`), double clicks and fixed bounds (`preprocess`).

mod decayed;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::event::EventKind;

use crate::config::{InfluenceConfig, WithoutToken};
use decayed::{Decayed, Divided, Pace};

/// A client whose events have less of a share is eager.
const CALM_SHARE_MIN: f64 = 0.5;

/// Why an event teaches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A double click, or a burst by the fixed bound of `[labels]`.
    Noise,
    /// Its client has taught many times what a usual one does.
    Client,
    /// The same within the half-life of bursts.
    Burst,
    /// Its client has taught the same about the item of late.
    Repeat,
    /// New clients have had their share of the item.
    Newcomers,
    /// Clients that teach more than usual have had their share of the item.
    Eager,
    /// Too few clients have acted on the item yet.
    FewClients,
    /// It came without a valid visit token.
    NoToken,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Noise,
        Self::Client,
        Self::Burst,
        Self::Repeat,
        Self::Newcomers,
        Self::Eager,
        Self::FewClients,
        Self::NoToken,
    ];

    /// As it stands in JSON and in `/metrics`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Client => "client",
            Self::Burst => "burst",
            Self::Repeat => "repeat",
            Self::Newcomers => "newcomers",
            Self::Eager => "eager",
            Self::FewClients => "few_clients",
            Self::NoToken => "no_token",
        }
    }
}

/// An event that could teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// Whose.
    pub user_idx: u32,
    /// About which item.
    pub item_idx: u32,
    /// What was done.
    pub kind: EventKind,
    /// By the server's clock, in milliseconds since 1970-01-01 UTC.
    pub arrived_at: i64,
    /// Whether it came with a valid visit token.
    pub is_vouched: bool,
}

/// Events that taught nothing, by reason.
pub type SetAside = BTreeMap<Reason, u64>;

/// What is known of one client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Standing {
    /// When the server first had an event of it that could teach, in milliseconds since 1970-01-01 UTC.
    pub first_seen_at: i64,
    /// Events that taught, since then.
    pub events_taught: u32,
    /// The same with those of long ago counting less.
    pub influence: f64,
    /// What `influence` may be; absent while there are too few clients to say.
    pub influence_max: Option<f64>,
    /// Whether it counts as a newcomer.
    pub is_newcomer: bool,
}

/// What is known of all clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Crowd {
    /// Clients of late.
    pub clients: f64,
    /// Events of a usual client that taught.
    pub events_per_client: f64,
    /// Share of newcomers in what was taught.
    pub newcomer_share: f64,
}

/// Who has taught how much.
#[derive(Debug, Clone)]
pub struct Influence {
    config: InfluenceConfig,
    now_millis: i64,
    /// By the index of the user.
    clients: Vec<Client>,
    items: Vec<ItemCrowd>,
    steady: Pace,
    burst: Pace,
    newcomers: Divided,
    eager: Divided,
}

#[derive(Debug, Clone, Default)]
struct Client {
    /// First and last moment.
    seen: Option<(i64, i64)>,
    num_taught: u32,
    steady: Decayed,
    burst: Decayed,
    /// What its events counted for, each its share.
    shares: Decayed,
    /// Within `item_repeat_secs`, oldest first.
    taught: Vec<Taught>,
}

#[derive(Debug, Clone, Copy)]
struct Taught {
    at_millis: i64,
    item_idx: u32,
    kind: EventKind,
}

#[derive(Debug, Clone, Default)]
struct ItemCrowd {
    newcomers: Divided,
    eager: Divided,
    /// Clients that have acted on it, until there are enough.
    clients: Vec<u32>,
}

impl Influence {
    /// Before the first event.
    #[must_use]
    pub fn new(config: InfluenceConfig) -> Self {
        Self {
            now_millis: i64::MIN,
            clients: Vec::new(),
            items: Vec::new(),
            steady: Pace::new(config.half_life_secs),
            burst: Pace::new(config.burst_half_life_secs),
            newcomers: Divided::default(),
            eager: Divided::default(),
            config,
        }
    }

    /// Judges an event that could teach, and counts it where it does: how much of it does.
    ///
    /// # Errors
    /// Why it teaches nothing.
    pub fn judge(&mut self, act: Act) -> Result<f32, Reason> {
        if !act.is_vouched && self.config.without_token == WithoutToken::Nothing {
            return Err(Reason::NoToken);
        }
        self.now_millis = self.now_millis.max(act.arrived_at);
        let (user, item) = (act.user_idx as usize, act.item_idx as usize);
        if self.clients.len() <= user {
            self.clients.resize_with(user + 1, Client::default);
        }
        if self.items.len() <= item {
            self.items.resize_with(item + 1, ItemCrowd::default);
        }
        let has_clients = self.items[item].has_clients(act.user_idx, self.config.item_clients_min);
        let mut client = std::mem::take(&mut self.clients[user]);
        self.see(&mut client);
        let judged = if !has_clients {
            Err(Reason::FewClients)
        } else if self.has_crowd() {
            let within = self.judge_in_crowd(&client, act);
            within.and_then(|()| self.hear(&client, act))
        } else {
            Ok(1.0)
        };
        if let Ok(share) = judged {
            self.count(&mut client, act, share);
        }
        self.clients[user] = client;
        judged
    }

    /// Forgets a client; what it taught stays in the sums of all.
    pub fn forget(&mut self, user_idx: u32) {
        if let Some(client) = self.clients.get_mut(user_idx as usize) {
            *client = Client::default();
        }
    }

    /// What is known of a client; `None` where nothing is.
    #[must_use]
    pub fn standing(&self, user_idx: u32) -> Option<Standing> {
        let client = self.clients.get(user_idx as usize)?;
        let (first_seen_at, _) = client.seen?;
        let max = limit(&self.config, &self.steady, self.now_millis);
        Some(Standing {
            first_seen_at,
            events_taught: client.num_taught,
            influence: self.steady.of(&client.steady, self.now_millis),
            influence_max: self.has_crowd().then_some(max),
            is_newcomer: self.is_newcomer(client),
        })
    }

    /// What is known of all.
    #[must_use]
    pub fn crowd(&self) -> Crowd {
        let (now, half_life) = (self.now_millis, self.steady.half_life_millis());
        Crowd {
            clients: self.steady.num_clients(now),
            events_per_client: self.steady.mean(now),
            newcomer_share: self.newcomers.share(now, half_life),
        }
    }

    fn see(&mut self, client: &mut Client) {
        let last = client.seen.map(|(_, last)| last);
        self.steady.saw(last, self.now_millis);
        self.burst.saw(last, self.now_millis);
        let first = client.seen.map_or(self.now_millis, |(first, _)| first);
        client.seen = Some((first, self.now_millis));
        let oldest = self
            .now_millis
            .saturating_sub_unsigned(self.config.item_repeat_secs.saturating_mul(1000));
        let num_old = client
            .taught
            .partition_point(|taught| taught.at_millis <= oldest);
        client.taught.drain(..num_old);
    }

    fn has_crowd(&self) -> bool {
        let clients_min = self.config.clients_min;
        clients_min > 0 && self.steady.num_clients(self.now_millis) >= f64::from(clients_min)
    }

    fn is_newcomer(&self, client: &Client) -> bool {
        let first = client.seen.map_or(self.now_millis, |(first, _)| first);
        let age_millis = self.now_millis.abs_diff(first);
        age_millis < self.config.newcomer_secs.saturating_mul(1000)
            || client.num_taught < self.config.newcomer_events
    }

    /// Whether the event is one of a newcomer.
    fn is_new(&self, client: &Client, act: Act) -> bool {
        let is_unknown = !act.is_vouched && self.config.without_token == WithoutToken::Newcomer;
        is_unknown || self.is_newcomer(client)
    }

    fn judge_in_crowd(&self, client: &Client, act: Act) -> Result<(), Reason> {
        let (config, now) = (&self.config, self.now_millis);
        let of_item = client
            .taught
            .iter()
            .filter(|taught| taught.item_idx == act.item_idx);
        let is_same = of_item.clone().any(|taught| taught.kind == act.kind);
        if is_same || of_item.count() >= config.item_kinds_max {
            return Err(Reason::Repeat);
        }
        let is_within =
            |pace: &Pace, own: &Decayed| pace.of(own, now) + 1.0 <= limit(config, pace, now);
        if !is_within(&self.steady, &client.steady) {
            return Err(Reason::Client);
        }
        if !is_within(&self.burst, &client.burst) {
            return Err(Reason::Burst);
        }
        let item = &self.items[act.item_idx as usize];
        if self.is_new(client, act) && !self.takes_newcomer(item) {
            return Err(Reason::Newcomers);
        }
        Ok(())
    }

    /// Whether an item may still learn from a newcomer: as many as come to all items, and some.
    fn takes_newcomer(&self, item: &ItemCrowd) -> bool {
        let (now, half_life) = (self.now_millis, self.steady.half_life_millis());
        let beyond = item.newcomers.beyond_usual(
            &self.newcomers,
            self.config.newcomer_factor,
            now,
            half_life,
        );
        beyond + 1.0 <= f64::from(self.config.newcomer_floor)
    }

    /// How much of an event counts. Events of the eager about an item count against it whether they teach or not, so
    /// that a wave of them is over when it is over.
    fn hear(&mut self, client: &Client, act: Act) -> Result<f32, Reason> {
        let share = self.share(client);
        let is_eager = share < CALM_SHARE_MIN;
        let half_life = self.config.eager_half_life_secs as f64 * 1000.0; // the configuration bounds it
        let (now, factor) = (self.now_millis, self.config.eager_factor);
        let item = &mut self.items[act.item_idx as usize].eager;
        let beyond = item.beyond_usual(&self.eager, factor, now, half_life);
        for eager in [item, &mut self.eager] {
            eager.add(is_eager, now, half_life);
        }
        if is_eager && beyond + 1.0 > f64::from(self.config.eager_floor) {
            return Err(Reason::Eager);
        }
        Ok(share as f32) // rounds
    }

    /// What is left of an event of a client that has taught so much: all its shares stay below `share_factor` means.
    fn share(&self, client: &Client) -> f64 {
        let usual = self.steady.mean(self.now_millis).max(1.0);
        let most = f64::from(self.config.share_factor) * usual;
        let so_far = self.steady.of(&client.shares, self.now_millis);
        (1.0 - so_far / most).max(0.0)
    }

    fn count(&mut self, client: &mut Client, act: Act, share: f32) {
        let (now, half_life) = (self.now_millis, self.steady.half_life_millis());
        let is_newcomer = self.is_new(client, act);
        let item = &mut self.items[act.item_idx as usize];
        for newcomers in [&mut item.newcomers, &mut self.newcomers] {
            newcomers.add(is_newcomer, now, half_life);
        }
        self.steady.taught(&mut client.steady, now);
        self.burst.taught(&mut client.burst, now);
        client.shares.add(f64::from(share), now, half_life);
        client.num_taught = client.num_taught.saturating_add(1);
        client.taught.push(Taught {
            at_millis: now,
            item_idx: act.item_idx,
            kind: act.kind,
        });
    }
}

/// What one client may have taught.
fn limit(config: &InfluenceConfig, pace: &Pace, now_millis: i64) -> f64 {
    let share = f64::from(config.mean_factor) * pace.mean(now_millis);
    share.max(f64::from(config.events_min))
}

impl ItemCrowd {
    /// Whether `clients_min` clients have acted on the item, this one included.
    fn has_clients(&mut self, user_idx: u32, clients_min: usize) -> bool {
        if self.clients.len() < clients_min && !self.clients.contains(&user_idx) {
            self.clients.push(user_idx);
        }
        self.clients.len() >= clients_min
    }
}

#[cfg(test)]
mod tests;
