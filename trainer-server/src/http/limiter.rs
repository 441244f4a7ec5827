//! How much one client, and one key, may ask for: buckets that fill with what was used and run dry by and by.
//!
//! The memory is bounded: of the clients that were seen least lately some are forgotten, which only does them good.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crate::access::Role;
use crate::config::LimitsConfig;

/// Clients of each half of the memory, of which each takes about 100 bytes.
const CLIENTS_MAX: usize = 65_536;

/// Per second, and at once after a pause; 0 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Per second.
    pub per_sec: u64,
    /// At once.
    pub burst: u64,
}

const CLIENT_VISITS: &str = "client-visits";
/// Buckets run dry by whole units a second; what is limited per hour counts as many.
pub(super) const SECS_PER_HOUR: u64 = 3600;

/// Beyond a limit: whose it is, and when there is room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Of the limit, for example `client-requests`.
    pub name: &'static str,
    /// The limit.
    pub rate: Rate,
    /// Seconds to wait.
    pub retry_after_secs: u32,
}

impl Exceeded {
    /// As it is told: so many in a window of so many seconds.
    pub(super) fn quota(&self) -> (u64, u64) {
        let Rate { per_sec, burst } = self.rate;
        match self.name {
            CLIENT_VISITS => (per_sec, SECS_PER_HOUR), // in their own units, see [`Counted::Visits`]
            _ => (burst, burst.div_ceil(per_sec.max(1))),
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Requests,
    Events,
    /// In units of which a client gets `client_visits_per_hour` per second, and an hour's at once.
    Visits,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// Of the client, behind proxies that are trusted.
    pub(super) address: IpAddr,
    /// Of its key.
    pub(super) role: Option<Role>,
}

/// What was used and has not run off yet.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    used: f64,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Usage([Bucket; 3]);

impl Usage {
    fn none(now: Instant) -> Self {
        Self([Bucket { used: 0.0, at: now }; 3])
    }
}

struct State {
    young: HashMap<IpAddr, Usage>,
    old: HashMap<IpAddr, Usage>,
    /// Of ingest and read key.
    keys: [Usage; 2],
}

/// The buckets of a server.
pub(super) struct Limiter {
    limits: RwLock<Arc<LimitsConfig>>,
    state: Mutex<State>,
}

impl Limiter {
    pub(super) fn new(config: &LimitsConfig, now: Instant) -> Self {
        let state = State {
            young: HashMap::new(),
            old: HashMap::new(),
            keys: [Usage::none(now); 2],
        };
        Self {
            limits: RwLock::new(Arc::new(config.clone())),
            state: Mutex::new(state),
        }
    }

    /// What holds at the moment.
    pub(super) fn limits(&self) -> Arc<LimitsConfig> {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner); // whole at any time
        Arc::clone(&limits)
    }

    /// Other limits from now on; what was used stays counted.
    pub(super) fn change(&self, limits: LimitsConfig) {
        let mut held = self.limits.write().unwrap_or_else(PoisonError::into_inner); // as above
        *held = Arc::new(limits);
    }

    /// Counts, or says what is exceeded; then nothing is counted. Operators have no limit.
    pub(super) fn take(
        &self,
        caller: Caller,
        counted: Counted,
        count: u64,
        now: Instant,
    ) -> Result<(), Exceeded> {
        let key_idx = match caller.role {
            Some(Role::Admin) => return Ok(()),
            Some(Role::Ingest) => Some(0),
            Some(Role::Read) => Some(1),
            None => None,
        };
        let [(client_name, client_rate), (key_name, key_rate)] = self.rates(counted);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner); // counts are whole at any time
        let client = state.usage(caller.address, now).0[counted as usize];
        let client = client.with(count, client_rate, now);
        let client = client.map_err(|secs| exceeded(client_name, client_rate, secs))?;
        if let Some(key_idx) = key_idx {
            let key = &mut state.keys[key_idx].0[counted as usize];
            *key = key
                .with(count, key_rate, now)
                .map_err(|secs| exceeded(key_name, key_rate, secs))?;
        }
        state.usage(caller.address, now).0[counted as usize] = client;
        Ok(())
    }

    fn rates(&self, counted: Counted) -> [(&'static str, Rate); 2] {
        let limits = self.limits();
        let rate = |per_sec, burst| Rate { per_sec, burst };
        match counted {
            Counted::Requests => [
                (
                    "client-requests",
                    rate(limits.client_requests_per_sec, limits.client_requests_burst),
                ),
                (
                    "key-requests",
                    rate(limits.key_requests_per_sec, limits.key_requests_burst),
                ),
            ],
            Counted::Events => [
                (
                    "client-events",
                    rate(limits.client_events_per_sec, limits.client_events_burst),
                ),
                (
                    "key-events",
                    rate(limits.key_events_per_sec, limits.key_events_burst),
                ),
            ],
            Counted::Visits => {
                let per_hour = limits.client_visits_per_hour;
                [
                    (CLIENT_VISITS, rate(per_hour, SECS_PER_HOUR * per_hour)),
                    ("key-visits", rate(0, 0)),
                ]
            }
        }
    }
}

impl State {
    fn usage(&mut self, address: IpAddr, now: Instant) -> &mut Usage {
        let client = network_of(address);
        if self.young.len() >= CLIENTS_MAX && !self.young.contains_key(&client) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        let known = || old.remove(&client).unwrap_or_else(|| Usage::none(now));
        self.young.entry(client).or_insert_with(known)
    }
}

impl Bucket {
    /// With `count` more in it, or the seconds until they fit. More than a burst fits into an empty bucket.
    fn with(self, count: u64, rate: Rate, now: Instant) -> Result<Self, f64> {
        if rate.per_sec == 0 {
            return Ok(self);
        }
        // Counts far below 2^53.
        let (per_sec, burst, count) = (rate.per_sec as f64, rate.burst as f64, count as f64);
        let run_off = now.saturating_duration_since(self.at).as_secs_f64() * per_sec;
        let before = (self.used - run_off).max(0.0);
        let used = before + count;
        if used > burst && before > 0.0 {
            return Err((used - burst).min(before) / per_sec);
        }
        Ok(Self { used, at: now })
    }
}

fn exceeded(name: &'static str, rate: Rate, secs: f64) -> Exceeded {
    let retry_after_secs = secs.ceil().clamp(1.0, 3600.0) as u32; // clamped before
    Exceeded {
        name,
        rate,
        retry_after_secs,
    }
}

/// An IPv6 client has a whole network of 64 bits, and could use another address of it for each request.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    fn limiter(now: Instant) -> Limiter {
        let mut limits = Config::default().limits;
        (limits.client_requests_per_sec, limits.client_requests_burst) = (2, 4);
        (limits.client_events_per_sec, limits.client_events_burst) = (10, 20);
        (limits.key_requests_per_sec, limits.key_requests_burst) = (3, 6);
        Limiter::new(&limits, now)
    }

    fn caller(address: &str, role: Option<Role>) -> Caller {
        let address = address.parse().expect("an address");
        Caller { address, role }
    }

    #[test]
    fn a_burst_passes_and_what_runs_off_passes_again() {
        let now = Instant::now();
        let limiter = limiter(now);
        let one = caller("10.0.0.1", None);
        let take = |at| limiter.take(one, Counted::Requests, 1, at);
        for _ in 0..4 {
            take(now).expect("within the burst");
        }
        let refused = take(now).expect_err("beyond it");
        assert_eq!(
            (refused.name, refused.retry_after_secs),
            ("client-requests", 1)
        );
        assert!(take(now + Duration::from_millis(400)).is_err());
        assert!(take(now + Duration::from_millis(600)).is_ok());
        let other = caller("10.0.0.2", None);
        assert!(limiter.take(other, Counted::Requests, 1, now).is_ok());
        assert!(
            limiter.take(one, Counted::Events, 20, now).is_ok(),
            "counted apart"
        );
    }

    #[test]
    fn a_batch_beyond_the_burst_fits_after_a_pause_and_not_before() {
        let now = Instant::now();
        let limiter = limiter(now);
        let one = caller("10.0.0.1", None);
        let take = |count, at| limiter.take(one, Counted::Events, count, at);
        assert!(take(50, now).is_ok());
        let refused = take(50, now).expect_err("the bucket is full");
        assert_eq!(refused.retry_after_secs, 5);
        assert!(take(50, now + Duration::from_secs(5)).is_ok());
    }

    #[test]
    fn all_senders_with_one_key_share_its_limit_and_operators_have_none() {
        let now = Instant::now();
        let limiter = limiter(now);
        let take = |host: u8, role| {
            let caller = caller(&format!("10.0.0.{host}"), Some(role));
            limiter.take(caller, Counted::Requests, 1, now)
        };
        for host in 0..6 {
            take(host, Role::Ingest).expect("within the burst");
        }
        assert_eq!(
            take(6, Role::Ingest).expect_err("beyond").name,
            "key-requests"
        );
        assert!(take(6, Role::Read).is_ok(), "another key");
        for _ in 0..100 {
            take(7, Role::Admin).expect("no limit");
        }
    }

    #[test]
    fn addresses_of_one_network_are_one_client_and_the_memory_is_bounded() {
        let now = Instant::now();
        let limiter = limiter(now);
        for host in 0..4 {
            let caller = caller(&format!("2001:db8::{host}"), None);
            limiter
                .take(caller, Counted::Requests, 1, now)
                .expect("within");
        }
        let same = caller("2001:db8::ffff", None);
        assert!(limiter.take(same, Counted::Requests, 1, now).is_err());
        let mapped = caller("::ffff:10.0.0.1", None);
        limiter
            .take(mapped, Counted::Requests, 4, now)
            .expect("within");
        let plain = caller("10.0.0.1", None);
        assert!(limiter.take(plain, Counted::Requests, 1, now).is_err());
        for host in 0..3 * CLIENTS_MAX as u32 {
            let address = std::net::Ipv4Addr::from_bits(host).into();
            let caller = Caller {
                address,
                role: None,
            };
            limiter
                .take(caller, Counted::Requests, 1, now)
                .expect("each its first");
        }
        let state = limiter.state.lock().expect("no panic");
        assert!(state.young.len() <= CLIENTS_MAX && state.old.len() <= CLIENTS_MAX);
    }
}
