//! Which rung is taken: the best one that fits, and which ones nobody would take.

use super::Rung;

/// What a rung must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Bytes of its file at most.
    pub bytes: usize,
    /// Its time over that of the encoder that is only packed, at most; nothing where time does not count.
    pub time_share: Option<f64>,
}

impl Target {
    /// Whether a rung fits, where the encoder that is only packed takes `whole_ms`.
    #[must_use]
    pub fn fits(&self, rung: &Rung, whole_ms: f64) -> bool {
        let is_fast = |share: f64| rung.native_ms <= share * whole_ms;
        rung.bytes <= self.bytes && self.time_share.is_none_or(is_fast)
    }
}

/// The place of the best rung that fits and passes the robustness gate; nothing where none does.
#[must_use]
pub fn choose(rungs: &[Rung], target: Target, whole_ms: f64) -> Option<usize> {
    let fitting = rungs.iter().enumerate();
    let fitting =
        fitting.filter(|(_, rung)| target.fits(rung, whole_ms) && rung.robustness.passes());
    let best = fitting.max_by(|(_, a), (_, b)| a.ndcg_at_10.total_cmp(&b.ndcg_at_10));
    best.map(|(place, _)| place)
}

/// By rung: whether none is as good in all of quality, bytes and time, and better in one.
#[must_use]
pub fn frontier(rungs: &[Rung]) -> Vec<bool> {
    let costs = |rung: &Rung| [-rung.ndcg_at_10, rung.bytes as f64, rung.native_ms]; // far below 2^52
    let is_beaten = |rung: &Rung| {
        let own = costs(rung);
        rungs.iter().any(|other| {
            let others = costs(other);
            let pairs = || others.iter().zip(&own);
            pairs().all(|(other, own)| other <= own) && pairs().any(|(other, own)| other < own)
        })
    };
    rungs.iter().map(|rung| !is_beaten(rung)).collect()
}
