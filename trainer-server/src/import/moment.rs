//! Moments as other systems write them, in milliseconds since 1970-01-01 UTC.

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::Value;

use super::sheet::shown;

/// From here on a number is no count of seconds: it would be the year 5138.
const SECS_MAX: f64 = 1e11;

/// RFC 3339, the same with a space and without a zone (read as UTC), as Go prints it, or a date.
pub(crate) fn from_text(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.timestamp_millis());
    }
    let with_zone = text.trim_end_matches(" UTC");
    if let Ok(moment) = DateTime::parse_from_str(with_zone, "%Y-%m-%d %H:%M:%S%.f %z") {
        return Some(moment.timestamp_millis());
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(moment) = NaiveDateTime::parse_from_str(text, format) {
            return Some(moment.and_utc().timestamp_millis());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?; // a text that is no moment
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

/// Month, day and year, and twelve hours a half day: `11/11/2019 9:05:58 AM`.
pub(super) fn from_us_text(text: &str) -> Option<i64> {
    let moment = NaiveDateTime::parse_from_str(text.trim(), "%m/%d/%Y %I:%M:%S %p").ok()?; // as above
    Some(moment.and_utc().timestamp_millis())
}

/// Seconds, or a text of [`from_text`].
///
/// # Errors
/// Neither, or seconds that are milliseconds.
pub(super) fn from_secs(name: &str, value: &Value) -> Result<i64, String> {
    let secs = match value {
        Value::String(text) => match (text.trim().parse::<f64>(), from_text(text)) {
            (Ok(secs), _) => Some(secs),
            (Err(_), Some(millis)) => return Ok(millis),
            (Err(_), None) => None,
        },
        other => other.as_f64(),
    };
    let Some(secs) = secs.filter(|secs| secs.is_finite()) else {
        return Err(format!(
            "{name} is {}, expected seconds since 1970 or a moment like 2024-05-01T12:00:00Z",
            shown(value)
        ));
    };
    if secs.abs() >= SECS_MAX {
        return Err(format!(
            "{name} is {}, expected seconds since 1970; milliseconds are `occurred_at`: --map occurred_at={name}",
            shown(value)
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below 10^14, parts of a millisecond are dropped"
    )]
    Ok((secs * 1000.0).round() as i64)
}

/// Milliseconds as a number or a text, or a text of [`from_text`].
///
/// # Errors
/// Neither.
pub(super) fn from_millis(name: &str, value: &Value) -> Result<i64, String> {
    let millis = match value {
        Value::String(text) => text.trim().parse().ok().or_else(|| from_text(text)),
        other => other.as_i64(),
    };
    millis.ok_or_else(|| {
        format!(
            "{name} is {}, expected milliseconds since 1970 or a moment like 2024-05-01T12:00:00Z",
            shown(value)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_read_as_other_systems_write_them() {
        for text in [
            "2020-01-01T01:01:01Z",
            "2020-01-01T02:01:01+01:00",
            "2020-01-01 01:01:01.000000001 +0000 UTC",
            "2020-01-01 01:01:01",
        ] {
            assert_eq!(from_text(text), Some(1_577_840_461_000), "{text}");
        }
        assert_eq!(from_text("2020-01-01"), Some(1_577_836_800_000));
        assert_eq!(from_us_text("1/1/2020 1:01:01 AM"), Some(1_577_840_461_000));
        assert_eq!(from_us_text("13/1/2020 1:01:01 AM"), None);
        assert_eq!(from_secs("t", &json!("1577840461")), Ok(1_577_840_461_000));
        assert_eq!(
            from_millis("t", &json!("1577840461000")),
            Ok(1_577_840_461_000)
        );
    }

    #[test]
    fn what_is_no_moment_is_told_with_its_column_and_value() {
        let error = from_secs("ts", &json!("soon")).expect_err("no moment");
        assert!(
            error.starts_with("ts is `soon`, expected seconds"),
            "{error}"
        );
        let error = from_secs("ts", &json!(1_577_840_461_000_i64)).expect_err("milliseconds");
        assert!(error.contains("--map occurred_at=ts"), "{error}");
    }
}
