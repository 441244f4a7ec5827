//! Sums whose parts lose half their weight every half-life.

/// Such a sum. Moments are milliseconds and never go back.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Decayed {
    sum: f64,
    at_millis: i64,
}

impl Decayed {
    /// The sum as it is now.
    pub(super) fn now(&self, now_millis: i64, half_life_millis: f64) -> f64 {
        if self.sum == 0.0 {
            return 0.0; // nothing was added yet, so its moment means nothing
        }
        self.sum * weight(now_millis.saturating_sub(self.at_millis), half_life_millis)
    }

    /// Adds to it.
    pub(super) fn add(&mut self, amount: f64, now_millis: i64, half_life_millis: f64) {
        self.sum = self.now(now_millis, half_life_millis) + amount;
        self.at_millis = now_millis;
    }
}

/// Events of some clients beside those of all others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Divided {
    some: Decayed,
    others: Decayed,
}

impl Divided {
    /// One more event.
    pub(super) fn add(&mut self, is_of_some: bool, now_millis: i64, half_life_millis: f64) {
        let sum = if is_of_some {
            &mut self.some
        } else {
            &mut self.others
        };
        sum.add(1.0, now_millis, half_life_millis);
    }

    /// What some make up of all; 0 before the first event.
    pub(super) fn share(&self, now_millis: i64, half_life_millis: f64) -> f64 {
        let some = self.some.now(now_millis, half_life_millis);
        let all = some + self.others.now(now_millis, half_life_millis);
        if all > 0.0 { some / all } else { 0.0 }
    }

    /// Events of some about one thing beyond `factor` times what others' events about it let expect, as `all` are divided;
    /// none where there are no others.
    pub(super) fn beyond_usual(
        &self,
        all: &Self,
        factor: f32,
        now_millis: i64,
        half_life_millis: f64,
    ) -> f64 {
        let now = |sum: &Decayed| sum.now(now_millis, half_life_millis);
        if now(&all.others) < 1.0 {
            return 0.0;
        }
        let usual = now(&all.some) / now(&all.others);
        now(&self.some) - f64::from(factor) * (1.0 + now(&self.others)) * usual
    }
}

/// What is left of 1 after `age_millis`.
pub(super) fn weight(age_millis: i64, half_life_millis: f64) -> f64 {
    (-(age_millis as f64) / half_life_millis).exp2() // exact below 2^53 ms
}

/// Events and clients of late, and with them how much a usual client does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    half_life_millis: f64,
    events: Decayed,
    /// Every client counts as what is left of 1 since its last event.
    clients: Decayed,
}

impl Pace {
    pub(super) fn new(half_life_secs: u64) -> Self {
        Self {
            half_life_millis: half_life_secs as f64 * 1000.0, // the configuration bounds it
            events: Decayed::default(),
            clients: Decayed::default(),
        }
    }

    pub(super) fn half_life_millis(&self) -> f64 {
        self.half_life_millis
    }

    /// A client is here, who was seen before at `last_millis`.
    pub(super) fn saw(&mut self, last_millis: Option<i64>, now_millis: i64) {
        let half_life = self.half_life_millis;
        let left = last_millis.map_or(0.0, |last| weight(now_millis - last, half_life));
        self.clients.add(1.0 - left, now_millis, half_life);
    }

    /// An event of `own`, the sum of its client, taught.
    pub(super) fn taught(&mut self, own: &mut Decayed, now_millis: i64) {
        own.add(1.0, now_millis, self.half_life_millis);
        self.events.add(1.0, now_millis, self.half_life_millis);
    }

    /// Of one client, as it is now.
    pub(super) fn of(&self, own: &Decayed, now_millis: i64) -> f64 {
        own.now(now_millis, self.half_life_millis)
    }

    pub(super) fn num_clients(&self, now_millis: i64) -> f64 {
        self.clients.now(now_millis, self.half_life_millis)
    }

    /// Events of a usual client; 0 before there is one.
    pub(super) fn mean(&self, now_millis: i64) -> f64 {
        let num_clients = self.num_clients(now_millis);
        if num_clients == 0.0 {
            return 0.0;
        }
        self.events.now(now_millis, self.half_life_millis) / num_clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_halves_in_a_half_life_and_starts_at_any_time() {
        let mut sum = Decayed::default();
        assert_eq!(sum.now(-5_000, 1000.0), 0.0);
        sum.add(4.0, -5_000, 1000.0);
        sum.add(1.0, -4_000, 1000.0);
        assert_eq!(sum.now(-4_000, 1000.0), 3.0);
        assert_eq!(sum.now(-2_000, 1000.0), 0.75);
    }

    #[test]
    fn a_client_counts_once_however_often_it_is_seen() {
        let (mut pace, mut own) = (Pace::new(1), Decayed::default());
        let mut last = None;
        for at in [0, 0, 0, 500, 1000] {
            pace.saw(last, at);
            pace.taught(&mut own, at);
            last = Some(at);
        }
        assert!((pace.num_clients(1000) - 1.0).abs() < 1e-12);
        assert!((pace.mean(1000) - pace.of(&own, 1000)).abs() < 1e-12);
        pace.saw(None, 1000);
        assert!((pace.num_clients(1000) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_beyond_the_usual_is_told_from_how_all_are_divided() {
        let (mut all, mut one) = (Divided::default(), Divided::default());
        assert_eq!(all.share(0, 1000.0), 0.0);
        one.add(true, 0, 1000.0);
        assert_eq!(one.beyond_usual(&all, 1.0, 0, 1000.0), 0.0, "no others");
        for idx in 0..8 {
            all.add(idx % 4 == 0, 0, 1000.0);
        }
        assert_eq!(all.share(0, 1000.0), 0.25);
        one.add(false, 0, 1000.0);
        one.add(false, 0, 1000.0);
        let beyond = one.beyond_usual(&all, 0.5, 0, 1000.0);
        assert!(
            (beyond - 0.5).abs() < 1e-12,
            "1 of some, 3 thirds halved: {beyond}"
        );
    }
}
