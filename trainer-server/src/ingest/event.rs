//! One event from JSON, and the rules it must keep.

use serde_json::Value;
use shared_model::event::{Event, EventKind};
use shared_model::ids::ItemId;

use super::{Fault, Fields, RejectCode};

/// Clock skew below this is taken for the way through the network, in milliseconds.
const SKEW_MILLIS_MIN: i64 = 5000;

/// What an event is held against.
pub struct EventRules<'a> {
    /// Whether an item exists.
    pub is_known: &'a dyn Fn(&ItemId) -> bool,
    /// Arrival, by this server's clock.
    pub now_millis: i64,
    /// How far in the future an event may lie.
    pub future_millis_max: i64,
    /// How far the sender's clock is behind this server's; see [`EventRules::skew_millis`].
    pub skew_millis: i64,
}

impl EventRules<'_> {
    /// The correction for a sender that put its own time on the request.
    #[must_use]
    pub fn skew_millis(now_millis: i64, sent_at: Option<i64>) -> i64 {
        let skew = sent_at.map_or(0, |sent_at| now_millis.saturating_sub(sent_at));
        if skew.saturating_abs() < SKEW_MILLIS_MIN {
            0
        } else {
            skew
        }
    }

    /// Corrects the time of an event and checks what its type cannot.
    ///
    /// # Errors
    /// The first rule that it breaks; pointers are relative to `pointer`.
    pub fn check(&self, mut event: Event, pointer: &str) -> Result<Event, Fault> {
        let fault = |code, name: &str, detail: String| {
            Err(Fault::new(code, format!("{pointer}/{name}"), detail))
        };
        if event.occurred_at < 0 {
            let detail = format!("{} lies before 1970", event.occurred_at);
            return fault(RejectCode::Malformed, "occurred_at", detail);
        }
        // Seconds of these years, read as milliseconds, lie in January 1970.
        let now_secs = self.now_millis / 1000;
        if (now_secs / 2..now_secs * 2).contains(&event.occurred_at) {
            let detail = format!(
                "{} are seconds, as it seems; milliseconds since 1970 are wanted",
                event.occurred_at
            );
            return fault(RejectCode::Malformed, "occurred_at", detail);
        }
        event.occurred_at = event.occurred_at.saturating_add(self.skew_millis).max(0);
        let ahead_millis = event.occurred_at.saturating_sub(self.now_millis);
        if ahead_millis > self.future_millis_max {
            let detail = format!(
                "{ahead_millis} ms ahead of the server, at most {} are allowed",
                self.future_millis_max
            );
            return fault(RejectCode::TimeInFuture, "occurred_at", detail);
        }
        match event.value {
            Some(value) if !value.is_finite() => {
                return fault(
                    RejectCode::InvalidValue,
                    "value",
                    format!("{value} is not finite"),
                );
            }
            None if event.kind == EventKind::Rating => {
                let detail = "a rating needs a value".to_owned();
                return fault(RejectCode::InvalidValue, "value", detail);
            }
            _ => {}
        }
        match event.propensity {
            Some(propensity) if !(propensity > 0.0 && propensity <= 1.0) => {
                let detail = format!("{propensity} is not above 0 and at most 1");
                return fault(RejectCode::InvalidPropensity, "propensity", detail);
            }
            _ => {}
        }
        // Last, so that a dry run of an import, whose items may be coming, hears of all else.
        if !(self.is_known)(&event.item_id) {
            let detail = format!("no item `{}` in the catalogue", event.item_id);
            return fault(RejectCode::UnknownItem, "item_id", detail);
        }
        Ok(event)
    }
}

/// Reads an event that stands at `pointer`.
///
/// # Errors
/// The first field that is missing or of the wrong type.
pub fn event_from_json(value: &Value, pointer: &str) -> Result<Event, Fault> {
    let fields = Fields::new(value, pointer)?;
    let kind = fields.required("kind", fields.text("kind")?)?;
    let Some(kind) = kind_from_name(kind) else {
        let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind_name(*kind)).collect();
        let detail = format!("no kind `{kind:.40}`, expected one of {}", names.join(", "));
        return Err(fields.fault(RejectCode::Malformed, "kind", detail));
    };
    let position = match fields.u64("position")?.map(u32::try_from) {
        None => None,
        Some(Ok(position)) => Some(position),
        Some(Err(error)) => {
            return Err(fields.fault(RejectCode::Malformed, "position", error.to_string()));
        }
    };
    Ok(Event {
        event_id: fields.required("event_id", fields.id("event_id")?)?,
        kind,
        user_id: fields.required("user_id", fields.id("user_id")?)?,
        item_id: fields.required("item_id", fields.id("item_id")?)?,
        occurred_at: fields.required("occurred_at", fields.i64("occurred_at")?)?,
        value: fields.f64("value")?,
        model_version: fields.u64("model_version")?,
        impression_id: fields.id("impression_id")?,
        position,
        propensity: fields.f64("propensity")?,
        arm: fields.id("arm")?,
    })
}

/// The kind of that name on the wire.
pub(crate) fn kind_from_name(name: &str) -> Option<EventKind> {
    EventKind::ALL
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
}

/// Name on the wire.
fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Impression => "impression",
        EventKind::View => "view",
        EventKind::Click => "click",
        EventKind::AddToCart => "add_to_cart",
        EventKind::Purchase => "purchase",
        EventKind::Like => "like",
        EventKind::Dislike => "dislike",
        EventKind::Rating => "rating",
        EventKind::Skip => "skip",
        EventKind::Watch => "watch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn posted() -> Value {
        json!({
            "event_id": "e", "kind": "rating", "user_id": "u", "item_id": "i",
            "occurred_at": 1000, "value": 4.5, "position": 3, "propensity": 0.5,
            "arm": "shelf/bold",
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut event = posted();
        event[name] = value;
        event
    }

    fn accept(value: &Value) -> Result<Event, Fault> {
        let rules = EventRules {
            is_known: &|item_id| item_id.as_str() == "i",
            now_millis: 2000,
            future_millis_max: 300_000,
            skew_millis: 0,
        };
        rules.check(event_from_json(value, "/events/7")?, "/events/7")
    }

    #[test]
    fn kinds_have_the_names_that_serde_gives_them() {
        for kind in EventKind::ALL {
            assert_eq!(
                serde_json::to_value(kind).expect("serializes"),
                json!(kind_name(kind))
            );
        }
    }

    #[test]
    fn reads_what_serde_reads() {
        let event = accept(&posted()).expect("valid");
        assert_eq!(event, serde_json::from_value(posted()).expect("valid"));
        assert!(accept(&with("impression_id", Value::Null)).is_ok());
        assert!(accept(&with("more", json!("fields welcome"))).is_ok());
    }

    #[test]
    fn every_bad_field_is_named_with_its_code() {
        let cases = [
            ("event_id", json!(""), RejectCode::Malformed),
            ("event_id", Value::Null, RejectCode::Malformed),
            ("kind", json!("glance"), RejectCode::Malformed),
            ("user_id", json!(17), RejectCode::Malformed),
            ("item_id", json!("other"), RejectCode::UnknownItem),
            ("occurred_at", json!(1.5), RejectCode::Malformed),
            ("occurred_at", json!(-1), RejectCode::Malformed),
            ("occurred_at", json!(302_001), RejectCode::TimeInFuture),
            ("occurred_at", json!(2), RejectCode::Malformed), // seconds: it is 2000 ms past
            ("value", Value::Null, RejectCode::InvalidValue),
            ("value", json!("NaN"), RejectCode::Malformed),
            ("position", json!(-1), RejectCode::Malformed),
            ("position", json!(1u64 << 32), RejectCode::Malformed),
            ("propensity", json!(0.0), RejectCode::InvalidPropensity),
            ("propensity", json!(1.01), RejectCode::InvalidPropensity),
            ("model_version", json!("1"), RejectCode::Malformed),
            ("arm", json!(1), RejectCode::Malformed),
        ];
        for (name, value, code) in cases {
            let fault = accept(&with(name, value.clone())).expect_err(name);
            assert_eq!(
                (fault.code, fault.pointer),
                (code, format!("/events/7/{name}")),
                "{value}"
            );
        }
        assert_eq!(
            accept(&json!([])).expect_err("no object").pointer,
            "/events/7"
        );
    }

    #[test]
    fn a_wrong_clock_is_corrected_by_the_time_of_sending_and_latency_is_not() {
        assert_eq!(EventRules::skew_millis(10_000, None), 0);
        assert_eq!(EventRules::skew_millis(10_000, Some(6000)), 0);
        assert_eq!(EventRules::skew_millis(10_000, Some(700_000)), -690_000);
    }
}
