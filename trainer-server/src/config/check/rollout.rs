//! Ranges of `[rollout]` and `[moderation]`.

use shared_model::manifest::NUM_BUCKETS;

use super::{ConfigError, in_range, out_of_range};
use crate::config::{ModerationConfig, RolloutConfig};

pub(super) fn check(
    rollout: &RolloutConfig,
    moderation: &ModerationConfig,
) -> Result<(), ConfigError> {
    check_moderation(moderation)?;
    let share = u64::from(rollout.canary_share);
    in_range("rollout.canary_share", share, 0..=u64::from(NUM_BUCKETS))?;
    let interval = rollout.canary_interval_millis;
    in_range("rollout.canary_interval_millis", interval, 10..=3_600_000)?;
    in_range("rollout.max_secs", rollout.max_secs, 1..=1 << 24)?;
    in_range("rollout.faults_max", rollout.faults_max, 0..=1 << 32)?;
    let rows_max = rollout.ledger_rows_max as u64; // widening
    in_range("rollout.ledger_rows_max", rows_max, 10..=1 << 20)?;
    let alpha = rollout.alpha;
    if !(1e-6..=0.5).contains(&alpha) {
        return Err(out_of_range("rollout.alpha", &alpha, "0.000001 to 0.5"));
    }
    let share = rollout.fault_share_max;
    if !(0.0..=1.0).contains(&share) {
        return Err(out_of_range("rollout.fault_share_max", &share, "0 to 1"));
    }
    let bound = rollout.difference_max;
    if !(0.001..=100.0).contains(&bound) {
        return Err(out_of_range(
            "rollout.difference_max",
            &bound,
            "0.001 to 100",
        ));
    }
    let rise_max = rollout.rise_max;
    if !(0.0..bound).contains(&rise_max) {
        let expected = "0 or more, and below rollout.difference_max";
        return Err(out_of_range("rollout.rise_max", &rise_max, expected));
    }
    Ok(())
}

fn check_moderation(moderation: &ModerationConfig) -> Result<(), ConfigError> {
    let approvals = u64::from(moderation.approvals);
    in_range("moderation.approvals", approvals, 1..=2)?;
    let window_secs = u64::from(moderation.burst_window_secs);
    in_range("moderation.burst_window_secs", window_secs, 0..=86_400)?;
    let events_min = u64::from(moderation.burst_events_min);
    in_range("moderation.burst_events_min", events_min, 1..=1 << 30)?;
    let factor = moderation.burst_factor;
    if !(1.0..=1e6).contains(&factor) {
        let expected = "1 to 1000000";
        return Err(out_of_range("moderation.burst_factor", &factor, expected));
    }
    Ok(())
}
