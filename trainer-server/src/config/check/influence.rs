//! Ranges of `[influence]`.

use super::{ConfigError, in_range, out_of_range};
use crate::config::InfluenceConfig;

/// A hundred years.
const SECS_MAX: u64 = 100 * 366 * 86_400;

pub(super) fn check(influence: &InfluenceConfig) -> Result<(), ConfigError> {
    let (half_life, burst) = (influence.half_life_secs, influence.burst_half_life_secs);
    let kinds_max = influence.item_kinds_max as u64; // widening
    let item_clients_min = influence.item_clients_min as u64; // widening
    let newcomer_events = u64::from(influence.newcomer_events);
    let newcomer_floor = u64::from(influence.newcomer_floor);
    let ranges = [
        (
            "influence.clients_min",
            u64::from(influence.clients_min),
            0..=1 << 32,
        ),
        ("influence.half_life_secs", half_life, 1..=SECS_MAX),
        ("influence.burst_half_life_secs", burst, 1..=SECS_MAX),
        (
            "influence.eager_half_life_secs",
            influence.eager_half_life_secs,
            1..=SECS_MAX,
        ),
        (
            "influence.eager_floor",
            u64::from(influence.eager_floor),
            0..=1 << 32,
        ),
        (
            "influence.events_min",
            u64::from(influence.events_min),
            1..=1 << 32,
        ),
        (
            "influence.item_repeat_secs",
            influence.item_repeat_secs,
            0..=SECS_MAX,
        ),
        ("influence.item_kinds_max", kinds_max, 1..=10),
        (
            "influence.newcomer_secs",
            influence.newcomer_secs,
            0..=SECS_MAX,
        ),
        ("influence.newcomer_events", newcomer_events, 0..=1 << 32),
        ("influence.newcomer_floor", newcomer_floor, 0..=1 << 32),
        ("influence.item_clients_min", item_clients_min, 1..=1000),
    ];
    for (key, actual, range) in ranges {
        in_range(key, actual, range)?;
    }
    let factors = [
        ("influence.mean_factor", influence.mean_factor, 1.0),
        ("influence.newcomer_factor", influence.newcomer_factor, 1.0),
        ("influence.share_factor", influence.share_factor, 1.0),
        ("influence.eager_factor", influence.eager_factor, 0.0),
    ];
    for (key, actual, min) in factors {
        if !(min..=1e6).contains(&actual) {
            return Err(out_of_range(key, &actual, &format!("{min} to 1000000")));
        }
    }
    Ok(())
}
