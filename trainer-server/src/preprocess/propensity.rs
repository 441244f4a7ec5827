//! Inverse-propensity weights: what was shown seldom by chance counts for what was shown often.
//!
//! A click on an impression says as much about who chose the impression as about who clicked. With the logged
//! probability `p` of the choice, `1/p` takes the chooser out (Horvitz & Thompson 1952; for recommendations
//! Schnabel et al. 2016, arXiv:1602.05352). Weights are capped, since one of 1/0.001 would be the batch
//! (Ionides 2008), and normalized by themselves (Swaminathan & Joachims 2015):
//!
//! ```text
//! factor = min(1/p, cap) / mean of min(1/p, cap) over the last thousand such targets, in log order
//! ```
//!
//! Not normalized within a batch: a live batch often holds one event, and alone every event would weigh 1.
//! In log order the weights are the same however the log is cut into batches, and after a restart.
//! A target without a propensity keeps its weight. With `labels.propensity_cap = 0` all do.

use std::collections::{HashMap, VecDeque};

use shared_model::event::Event;
use shared_model::ids::EventId;

use super::UserIdx;

/// Impressions with a propensity that are remembered for their answers; the oldest go first.
const IMPRESSIONS_MAX: usize = 100_000;
/// Targets over which the mean runs.
const MEAN_LEN: f64 = 1000.0;

struct Shown {
    user: UserIdx,
    item_idx: u32,
    occurred_at: i64,
    propensity: f64,
}

/// Propensities of impressions, and the running mean of the weights.
pub(super) struct Propensities {
    cap: f64,
    window_millis: i64,
    shown: HashMap<EventId, Shown>,
    order: VecDeque<EventId>,
    num_weighted: f64,
    mean: f64,
}

impl Propensities {
    /// `cap` is 0 or at least 1.
    pub(super) fn new(cap: f32, join_window_secs: u64) -> Self {
        let window_secs = i64::try_from(join_window_secs).unwrap_or(i64::MAX);
        Self {
            cap: f64::from(cap),
            window_millis: window_secs.saturating_mul(1000),
            shown: HashMap::new(),
            order: VecDeque::new(),
            num_weighted: 0.0,
            mean: 0.0,
        }
    }

    /// Remembers an impression that has a propensity.
    pub(super) fn saw(&mut self, event: &Event, user: UserIdx, item_idx: u32, occurred_at: i64) {
        let Some(propensity) = event.propensity.filter(|_| self.cap > 0.0) else {
            return;
        };
        let shown = Shown {
            user,
            item_idx,
            occurred_at,
            propensity,
        };
        if self.shown.insert(event.event_id.clone(), shown).is_none() {
            self.order.push_back(event.event_id.clone());
        }
        if self.order.len() > IMPRESSIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.shown.remove(&oldest);
        }
    }

    /// Forgets what was shown to a user.
    pub(super) fn forget(&mut self, user: UserIdx) {
        self.shown.retain(|_, shown| shown.user != user);
        self.order
            .retain(|event_id| self.shown.contains_key(event_id));
    }

    /// What the weight of a target is multiplied with.
    pub(super) fn factor(
        &mut self,
        event: &Event,
        user: UserIdx,
        item_idx: u32,
        occurred_at: i64,
    ) -> f32 {
        if self.cap <= 0.0 {
            return 1.0;
        }
        let own = event.propensity;
        let Some(propensity) = own.or_else(|| self.of_shown(event, user, item_idx, occurred_at))
        else {
            return 1.0;
        };
        // Above 0 and at most 1, as the border made sure of both.
        let weight = (1.0 / propensity).min(self.cap);
        self.num_weighted = (self.num_weighted + 1.0).min(MEAN_LEN);
        self.mean += (weight - self.mean) / self.num_weighted;
        (weight / self.mean) as f32 // at most cap, which is an f32
    }

    /// Of the impression that the event says it answers: the same user, the same item, in time.
    fn of_shown(
        &self,
        event: &Event,
        user: UserIdx,
        item_idx: u32,
        occurred_at: i64,
    ) -> Option<f64> {
        let shown = self.shown.get(event.impression_id.as_ref()?)?;
        let age_millis = occurred_at.saturating_sub(shown.occurred_at);
        let is_answer = shown.user == user
            && shown.item_idx == item_idx
            && (0..=self.window_millis).contains(&age_millis);
        is_answer.then_some(shown.propensity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const USER: UserIdx = UserIdx(3);

    fn event(kind: &str, id: &str, more: Value) -> Event {
        let mut event = json!({ "event_id": id, "kind": kind, "user_id": "u", "item_id": "a", "occurred_at": 0 });
        let fields = event.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        serde_json::from_value(event).expect("valid")
    }

    /// Factor of a click that carries its propensity itself.
    fn click(propensities: &mut Propensities, propensity: f64) -> f32 {
        let event = event("click", "c", json!({ "propensity": propensity }));
        propensities.factor(&event, USER, 0, 0)
    }

    #[test]
    fn factors_are_capped_and_divided_by_their_running_mean() {
        let mut propensities = Propensities::new(10.0, 60);
        assert_eq!(click(&mut propensities, 0.5), 1.0, "2 / mean(2)");
        assert_eq!(click(&mut propensities, 0.25), 4.0 / 3.0, "4 / mean(2, 4)");
        let capped = click(&mut propensities, 0.001);
        assert!((capped - 10.0 / (16.0 / 3.0)).abs() < 1e-6, "{capped}");
        assert!((click(&mut propensities, 1.0) - 1.0 / 4.25).abs() < 1e-6);
    }

    #[test]
    fn an_answer_finds_the_propensity_of_its_impression_only_in_time_and_of_the_same_user_and_item()
    {
        let mut propensities = Propensities::new(10.0, 60);
        click(&mut propensities, 1.0);
        let shown = event("impression", "i", json!({ "propensity": 0.5 }));
        propensities.saw(&shown, USER, 7, 1_000);
        let answer = event("click", "c", json!({ "impression_id": "i" }));
        for (user, item_idx, at) in [
            (UserIdx(4), 7, 2_000),
            (USER, 8, 2_000),
            (USER, 7, 999),
            (USER, 7, 61_001),
        ] {
            assert_eq!(propensities.factor(&answer, user, item_idx, at), 1.0);
        }
        let factor = propensities.factor(&answer, USER, 7, 61_000);
        assert!((factor - 2.0 / 1.5).abs() < 1e-6, "{factor}");
        let stranger = event("click", "d", json!({ "impression_id": "unknown" }));
        assert_eq!(propensities.factor(&stranger, USER, 7, 2_000), 1.0);
    }

    #[test]
    fn off_means_every_weight_as_it_was() {
        let mut propensities = Propensities::new(0.0, 60);
        click(&mut propensities, 0.5);
        assert_eq!(click(&mut propensities, 0.01), 1.0);
    }

    #[test]
    fn old_impressions_make_room() {
        let mut propensities = Propensities::new(10.0, 60);
        for idx in 0..=IMPRESSIONS_MAX {
            let shown = event(
                "impression",
                &format!("i{idx}"),
                json!({ "propensity": 0.5 }),
            );
            propensities.saw(&shown, USER, 7, 0);
        }
        assert_eq!(propensities.shown.len(), IMPRESSIONS_MAX);
        assert_eq!(propensities.order.len(), IMPRESSIONS_MAX);
    }
}
