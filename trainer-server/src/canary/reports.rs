//! Reports of pages about versions that they could not take, counted per version and code.
//!
//! Anyone who can reach the public address can send one, so counts are evidence and no proof: see `docs/rollout.md` for
//! what a liar can do. Bounded: of [`VERSIONS_MAX`] versions, the oldest are forgotten first, though not from the sums by
//! code. In memory alone: after a restart no canary runs that they could speak of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_model::edge::report::{FaultCode, FaultReport};
use shared_model::ids::Version;

/// Versions that are counted for.
const VERSIONS_MAX: usize = 1024;

/// The counts; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    of_versions: BTreeMap<Version, BTreeMap<FaultCode, u64>>,
    by_code: BTreeMap<FaultCode, u64>,
}

impl Reports {
    /// Counts a report.
    pub fn note(&self, report: FaultReport) {
        let mut counts = self.counts();
        *counts.by_code.entry(report.code).or_default() += 1;
        let versions = &mut counts.of_versions;
        *versions
            .entry(report.version)
            .or_default()
            .entry(report.code)
            .or_default() += 1;
        while versions.len() > VERSIONS_MAX {
            versions.pop_first();
        }
    }

    /// Reports of the versions that `is_asked` names.
    #[must_use]
    pub fn of(&self, is_asked: impl Fn(Version) -> bool) -> u64 {
        let counts = self.counts();
        let asked = counts
            .of_versions
            .iter()
            .filter(|(version, _)| is_asked(**version));
        asked.flat_map(|(_, codes)| codes.values()).sum()
    }

    /// Reports by code since the start.
    #[must_use]
    pub fn by_code(&self) -> BTreeMap<FaultCode, u64> {
        self.counts().by_code.clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: u64, code: FaultCode) -> FaultReport {
        FaultReport {
            version: Version(version),
            code,
            bucket: None,
        }
    }

    #[test]
    fn reports_are_counted_per_version_and_the_oldest_versions_are_forgotten() {
        let reports = Reports::default();
        for code in [FaultCode::Hash, FaultCode::Hash, FaultCode::Apply] {
            reports.note(report(7, code));
        }
        assert_eq!(reports.of(|version| version == Version(7)), 3);
        assert_eq!(reports.of(|version| version == Version(8)), 0);
        assert_eq!(reports.by_code()[&FaultCode::Hash], 2);
        for version in 0..VERSIONS_MAX as u64 {
            reports.note(report(100 + version, FaultCode::Apply));
        }
        assert_eq!(reports.of(|version| version == Version(7)), 0);
        assert_eq!(reports.of(|_| true), VERSIONS_MAX as u64);
        assert_eq!(reports.by_code()[&FaultCode::Hash], 2);
    }
}
