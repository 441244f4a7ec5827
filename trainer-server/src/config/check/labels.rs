//! Ranges of `[labels]` that are no counts.

use super::{ConfigError, out_of_range};
use crate::config::LabelsConfig;

pub(super) fn check(labels: &LabelsConfig) -> Result<(), ConfigError> {
    let cap = labels.propensity_cap;
    if cap != 0.0 && !(1.0..=10_000.0).contains(&cap) {
        let expected = "0, or 1 to 10000";
        return Err(out_of_range("labels.propensity_cap", &cap, expected));
    }
    Ok(())
}
