//! Ratings without text: what a CrossEncoder must beat.
//!
//! ```text
//! μ        mean of all grades so far
//! item     μ + b_i          b_i = Σ(r − μ) / (n_i + 5)
//! user     μ + b_i + b_u    b_u = Σ(r − μ − b_i) / (n_u + 10)
//! ```
//! Damped means as in Koren 2009's baseline predictors, summed one grade after the other, so that a
//! prediction knows what came before it alone.

const ITEM_DAMPING: f64 = 5.0;
const USER_DAMPING: f64 = 10.0;

/// A prediction of each kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GradeBaselines {
    pub(super) global_mean: f64,
    pub(super) item_mean: f64,
    pub(super) user_item_bias: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    num: f64,
    total: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.num += 1.0;
        self.total += value;
    }

    fn damped(self, damping: f64) -> f64 {
        self.total / (self.num + damping)
    }
}

/// Sums of all grades so far.
pub(super) struct RatingMeans {
    all: Sum,
    items: Vec<Sum>,
    users: Vec<Sum>,
}

impl RatingMeans {
    pub(super) fn new(num_users: usize, num_items: usize) -> Self {
        Self {
            all: Sum::default(),
            items: vec![Sum::default(); num_items],
            users: vec![Sum::default(); num_users],
        }
    }

    /// What would be said of a user and an item; `None` before the first grade.
    pub(super) fn predict(&self, user_idx: u32, item_idx: u32) -> Option<GradeBaselines> {
        if self.all.num == 0.0 {
            return None;
        }
        let global_mean = self.all.damped(0.0);
        let item_mean = global_mean + self.items[item_idx as usize].damped(ITEM_DAMPING);
        let user_bias = self.users[user_idx as usize].damped(USER_DAMPING);
        Some(GradeBaselines {
            global_mean,
            item_mean,
            user_item_bias: item_mean + user_bias,
        })
    }

    pub(super) fn learn(&mut self, user_idx: u32, item_idx: u32, grade: f64) {
        self.all.add(grade);
        let global_mean = self.all.damped(0.0);
        self.items[item_idx as usize].add(grade - global_mean);
        let item_bias = self.items[item_idx as usize].damped(ITEM_DAMPING);
        self.users[user_idx as usize].add(grade - global_mean - item_bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_are_damped_and_known_only_after_the_first_grade() {
        let mut means = RatingMeans::new(2, 2);
        assert_eq!(means.predict(0, 0), None);
        for _ in 0..50 {
            means.learn(0, 0, 9.0);
            means.learn(1, 1, 5.0);
        }
        let known = means.predict(0, 0).expect("graded");
        assert!((known.global_mean - 7.0).abs() < 1e-9);
        assert!(known.item_mean > 8.7 && known.item_mean < 9.0, "{known:?}");
        let crossed = means.predict(0, 1).expect("graded");
        assert!(crossed.item_mean < 5.3, "{crossed:?}");
        assert!(crossed.user_item_bias > crossed.item_mean);
    }
}
