//! Allowance: bytes that fast versions may cost per second, as a bucket that fills steadily (a token bucket).
//!
//! Versions wait while the bucket holds less than is worth a version; what is spent are the bytes of the delta as it
//! was encoded, so that the rate holds over any stretch longer than a burst, whatever the estimates were.
//! Time is passed in.

/// Bytes below which a version waits: its header, its counts and a few rows.
const VERSION_BYTES_MIN: f64 = 512.0;

/// What fast versions may still cost.
#[derive(Debug, Clone, PartialEq)]
pub struct ByteAllowance {
    /// Bytes that come in per second; `None` for no limit.
    bytes_per_sec: Option<f64>,
    /// Bytes that the bucket holds at most.
    burst: f64,
    /// May be negative: a version larger than thought is paid off before the next.
    left: f64,
    filled_at_millis: i64,
}

impl ByteAllowance {
    /// A full bucket of `burst` bytes, or of a second where that is more; 0 bytes per second for no limit.
    #[must_use]
    pub fn new(bytes_per_sec: u64, burst: usize, now_millis: i64) -> Self {
        let bytes_per_sec = (bytes_per_sec > 0).then_some(bytes_per_sec as f64);
        let burst = (burst as f64).max(bytes_per_sec.unwrap_or(0.0));
        Self {
            bytes_per_sec,
            burst,
            left: burst,
            filled_at_millis: now_millis,
        }
    }

    /// Bytes that a version may cost now, at most `bytes_max`; `None` where it has to wait.
    pub fn grant(&mut self, now_millis: i64, bytes_max: usize) -> Option<usize> {
        let Some(bytes_per_sec) = self.bytes_per_sec else {
            return Some(bytes_max);
        };
        let elapsed_millis = now_millis.saturating_sub(self.filled_at_millis).max(0);
        self.filled_at_millis = self.filled_at_millis.max(now_millis);
        self.left = (self.left + bytes_per_sec * elapsed_millis as f64 / 1000.0).min(self.burst);
        let enough = VERSION_BYTES_MIN.min(self.burst);
        (self.left >= enough).then_some(bytes_max.min(self.left as usize)) // not negative here
    }

    /// A version went out.
    pub fn spend(&mut self, bytes: u64) {
        if self.bytes_per_sec.is_some() {
            self.left -= bytes as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_every_version_gets_its_budget() {
        let mut allowance = ByteAllowance::new(0, 3000, 0);
        allowance.spend(1 << 40);
        assert_eq!(allowance.grant(0, 3000), Some(3000));
    }

    #[test]
    fn over_a_minute_no_more_is_granted_than_the_rate_and_one_burst() {
        let mut allowance = ByteAllowance::new(1000, 3000, 0);
        let mut spent = 0_u64;
        for now_millis in (0..60_000).step_by(500) {
            if let Some(bytes) = allowance.grant(now_millis, 3000) {
                let encoded = bytes as u64 * 11 / 10; // a tenth more than was thought
                allowance.spend(encoded);
                spent += encoded;
            }
        }
        assert!((60_000..=63_300).contains(&spent), "{spent}");
    }

    #[test]
    fn an_overdraft_is_paid_off_before_the_next_version_and_time_that_runs_back_fills_nothing() {
        let mut allowance = ByteAllowance::new(1000, 3000, 0);
        allowance.spend(5000);
        assert_eq!(allowance.grant(2000, 3000), None);
        assert_eq!(allowance.grant(1000, 3000), None);
        assert_eq!(allowance.grant(2511, 3000), None);
        assert_eq!(allowance.grant(2512, 3000), Some(512));
    }
}
