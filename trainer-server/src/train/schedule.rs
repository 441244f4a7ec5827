//! Schedule: the step size over the steps of one fit, as a share of its full size.

use crate::config::Schedule;

/// Share left at the end of a falling schedule.
const FINAL_SHARE: f32 = 0.05;

/// Linear rise over `num_warmup_steps`, times the schedule, at step `step_idx` (from 0) of `num_steps`.
#[must_use]
pub fn share(schedule: Schedule, num_warmup_steps: u32, step_idx: usize, num_steps: usize) -> f32 {
    let rise = ((step_idx + 1) as f32 / num_warmup_steps.max(1) as f32).min(1.0);
    let done = (step_idx as f32 / num_steps.max(1) as f32).min(1.0);
    let fall = match schedule {
        Schedule::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * done).cos()),
        Schedule::Linear => 1.0 - done,
        Schedule::Constant => 1.0,
    };
    rise * fall.max(FINAL_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls_as_named() {
        assert_eq!(share(Schedule::Constant, 0, 0, 10), 1.0);
        assert_eq!(share(Schedule::Constant, 4, 0, 10), 0.25);
        assert_eq!(share(Schedule::Linear, 0, 5, 10), 0.5);
        assert!((share(Schedule::Cosine, 0, 5, 10) - 0.5).abs() < 1e-6);
        assert_eq!(share(Schedule::Cosine, 0, 10, 10), FINAL_SHARE);
        assert_eq!(share(Schedule::Linear, 0, 99, 10), FINAL_SHARE);
    }
}
