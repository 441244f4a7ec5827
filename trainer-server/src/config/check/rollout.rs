//! Ranges of `[rollout]`.

use super::{ConfigError, in_range};
use crate::config::RolloutConfig;

pub(super) fn check(rollout: &RolloutConfig) -> Result<(), ConfigError> {
    let rows_max = rollout.ledger_rows_max as u64; // widening
    in_range("rollout.ledger_rows_max", rows_max, 10..=1 << 20)
}
