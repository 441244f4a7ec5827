//! Counts of what came in, for `/metrics` and `/v1/status`.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

use crate::ingest::RejectCode;

/// Counts since start.
#[derive(Debug, Default)]
pub struct IngestCounters {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    backpressure: AtomicU64,
    rejected: [AtomicU64; RejectCode::ALL.len()],
}

impl IngestCounters {
    pub(super) fn add(&self, num_accepted: u64, num_duplicates: u64) {
        self.accepted.fetch_add(num_accepted, Ordering::Relaxed);
        self.duplicates.fetch_add(num_duplicates, Ordering::Relaxed);
    }

    pub(super) fn add_rejected(&self, code: RejectCode) {
        self.rejected[code as usize].fetch_add(1, Ordering::Relaxed); // declaration order is the order of `ALL`
    }

    pub(super) fn add_backpressure(&self) {
        self.backpressure.fetch_add(1, Ordering::Relaxed);
    }

    /// Events accepted.
    pub fn num_accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Events seen before.
    pub fn num_duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Requests turned away because the queue was full.
    pub fn num_backpressure(&self) -> u64 {
        self.backpressure.load(Ordering::Relaxed)
    }

    /// Events and items refused, by reason.
    pub fn num_rejected(&self) -> [(RejectCode, u64); RejectCode::ALL.len()] {
        RejectCode::ALL.map(|code| (code, self.rejected[code as usize].load(Ordering::Relaxed)))
    }
}

/// Statuses of requests that were turned away before anything was done.
const REFUSED: [StatusCode; 5] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::TOO_MANY_REQUESTS,
];

/// Requests turned away since start, of both addresses.
#[derive(Debug, Default)]
pub(super) struct RefusalCounters([AtomicU64; REFUSED.len()]);

impl RefusalCounters {
    /// Counts an answer, if it is a refusal.
    pub(super) fn see(&self, status: StatusCode) {
        let refused = REFUSED.iter().zip(&self.0);
        if let Some((_, count)) = refused.into_iter().find(|(refused, _)| **refused == status) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By status.
    pub(super) fn by_status(&self) -> impl Iterator<Item = (StatusCode, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        REFUSED.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_counts_for_itself() {
        let counters = IngestCounters::default();
        for (code_idx, code) in RejectCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, code_idx);
            counters.add_rejected(code);
        }
        assert!(counters.num_rejected().iter().all(|(_, count)| *count == 1));
    }
}
