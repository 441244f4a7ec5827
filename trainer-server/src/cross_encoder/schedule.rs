//! Learning rates by step: linear warm-up, then linear decay to zero, or constant for a stream without end.

/// How the learning rate goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Steps until it is reached.
    pub num_warmup: usize,
    /// Steps until it is back at zero; `None` stays at the peak.
    pub num_steps: Option<usize>,
}

impl Schedule {
    /// Warm-up over the first tenth, then decay, as BERT was fine-tuned.
    #[must_use]
    pub fn warm(peak: f64, num_steps: usize) -> Self {
        Self {
            peak,
            num_warmup: num_steps.div_ceil(10),
            num_steps: Some(num_steps),
        }
    }

    /// Constant.
    #[must_use]
    pub fn constant(peak: f64) -> Self {
        Self {
            peak,
            num_warmup: 0,
            num_steps: None,
        }
    }

    /// The rate of step `step`, which counts from 0; never zero before the end.
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.num_warmup {
            return self.peak * (step + 1) as f64 / self.num_warmup as f64; // counts far below 2^53
        }
        let Some(num_steps) = self.num_steps else {
            return self.peak;
        };
        let num_decay = num_steps.saturating_sub(self.num_warmup).max(1);
        let num_left = num_steps.saturating_sub(step);
        self.peak * num_left as f64 / num_decay as f64 // likewise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_climbs_to_the_peak_and_falls_to_zero() {
        let schedule = Schedule::warm(1.0, 20);
        let rates: Vec<f64> = (0..=20).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates[..3], [0.5, 1.0, 1.0]);
        assert!(rates[2..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(rates[19] > 0.0);
        assert_eq!(rates[20], 0.0);
        assert_eq!(Schedule::constant(0.3).rate(1_000_000), 0.3);
        assert_eq!(Schedule::warm(1.0, 1).rate(0), 1.0);
    }
}
