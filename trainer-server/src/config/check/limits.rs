//! Ranges of `[limits]`.

use super::{ConfigError, in_range, out_of_range};
use crate::config::LimitsConfig;

const PER_SEC_MAX: u64 = 1 << 40;

pub(super) fn check(limits: &LimitsConfig) -> Result<(), ConfigError> {
    let rates = [
        (
            [
                "limits.client_requests_per_sec",
                "limits.client_requests_burst",
            ],
            [limits.client_requests_per_sec, limits.client_requests_burst],
        ),
        (
            ["limits.client_events_per_sec", "limits.client_events_burst"],
            [limits.client_events_per_sec, limits.client_events_burst],
        ),
        (
            ["limits.key_requests_per_sec", "limits.key_requests_burst"],
            [limits.key_requests_per_sec, limits.key_requests_burst],
        ),
        (
            ["limits.key_events_per_sec", "limits.key_events_burst"],
            [limits.key_events_per_sec, limits.key_events_burst],
        ),
    ];
    for ([rate_key, burst_key], [per_sec, burst]) in rates {
        in_range(rate_key, per_sec, 0..=PER_SEC_MAX)?;
        in_range(burst_key, burst, 0..=PER_SEC_MAX)?;
        if burst < per_sec {
            let expected = "at least as much as in one second";
            return Err(out_of_range(burst_key, &burst, expected));
        }
    }
    let visits = limits.client_visits_per_hour;
    in_range("limits.client_visits_per_hour", visits, 0..=1 << 30)?;
    let connections = limits.client_connections_max as u64; // widening
    in_range("limits.client_connections_max", connections, 1..=1 << 20)?;
    in_range(
        "limits.body_timeout_secs",
        limits.body_timeout_secs,
        1..=3600,
    )?;
    in_range(
        "limits.body_bytes_per_sec_min",
        limits.body_bytes_per_sec_min,
        0..=1 << 30,
    )?;
    in_range(
        "limits.bodies_bytes_max",
        limits.bodies_bytes_max,
        1 << 20..=1 << 40,
    )?;
    in_range(
        "limits.answer_stall_secs",
        limits.answer_stall_secs,
        1..=3600,
    )
}
