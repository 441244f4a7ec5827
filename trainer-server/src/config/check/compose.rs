//! Ranges of what merged deltas may cost and how long blobs stay.

use shared_model::text::packed::PACKED_BYTES_MAX;

use super::{ConfigError, in_range, out_of_range};
use crate::config::PublishConfig;

/// Least and most for which blobs that a plan named stay.
const GRACE_SECS: std::ops::RangeInclusive<u64> = 1..=1 << 24;

pub(super) fn check(publish: &PublishConfig) -> Result<(), ConfigError> {
    let counts = [
        ("publish.keep_secs_min", publish.keep_secs_min, 1 << 32),
        ("publish.step_cost_bytes", publish.step_cost_bytes, 1 << 24),
        (
            "publish.compose_wait_millis",
            publish.compose_wait_millis,
            10_000,
        ),
        (
            "publish.compose_states_bytes_max",
            publish.compose_states_bytes_max as u64, // widening
            1 << 36,
        ),
        (
            "publish.composed_bytes_max",
            publish.composed_bytes_max,
            1 << 40,
        ),
        (
            "publish.text_bytes_max",
            publish.text_bytes_max as u64, // widening
            PACKED_BYTES_MAX as u64,       // likewise
        ),
    ];
    for (key, actual, most) in counts {
        in_range(key, actual, 0..=most)?;
    }
    in_range(
        "publish.handed_out_grace_secs",
        publish.handed_out_grace_secs,
        GRACE_SECS,
    )?;
    if !(0.0..=1.0).contains(&publish.compose_saving_min) {
        let actual = &publish.compose_saving_min;
        return Err(out_of_range("publish.compose_saving_min", actual, "0 to 1"));
    }
    if !(0.01..=1.0).contains(&publish.compose_share_max) {
        let actual = &publish.compose_share_max;
        return Err(out_of_range(
            "publish.compose_share_max",
            actual,
            "0.01 to 1",
        ));
    }
    Ok(())
}
