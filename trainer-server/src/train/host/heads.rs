//! Click and rating heads: losses and gradients of the labelled targets.
//!
//! ```text
//! z = m·(u∘v) + a·(u·v + b) + c     click: softplus(z) − z·y, and softplus(z) of one random item per click
//! z = m·(u∘v) + c                   rating: (z − rating)²
//! ```
//!
//! The same losses as in `losses`, which is the reference.

use super::elementwise::add_multiple;
use super::softmax_loss::{ItemView, Users};
use super::weights::{Gradients, Reached, Weights};
use crate::train::full_batch::Batch;
use crate::train::full_step::FullStepConfig;

/// What each label weighs: weight of the loss over the number of labels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LabelWeights {
    click: f32,
    rating: f32,
}

impl LabelWeights {
    /// Of the labels of a whole batch.
    pub(super) fn new(batch: &Batch, config: &FullStepConfig, reached: Reached) -> Self {
        let count = |is_counted: &dyn Fn(&Option<bool>) -> bool| {
            let labels = batch.targets.iter().map(|target| target.click);
            labels.filter(|label| is_counted(label)).count()
        };
        let num_clicks = count(&|label| label.is_some()) + count(&|label| *label == Some(true));
        let rated = batch
            .targets
            .iter()
            .filter(|target| target.rating.is_some());
        let share = |is_reached: bool, weight: f32, num_labels: usize| {
            if is_reached {
                weight / num_labels.max(1) as f32 // a batch is small
            } else {
                0.0
            }
        };
        Self {
            click: share(reached.click, config.click_weight, num_clicks),
            rating: share(reached.rating, config.rating_weight, rated.count()),
        }
    }
}

/// One user and one item, and what is known of them.
struct Pair<'a> {
    user: &'a [f32],
    user_gradient: &'a mut [f32],
    row: usize,
    items: ItemView<'a>,
}

/// Adds losses and gradients of the labels of the targets `first_target..`, one for each row of `users`.
pub(super) fn learn(
    first_target: usize,
    users: Users,
    batch: &Batch,
    items: ItemView,
    weights: &Weights,
    label_weights: LabelWeights,
    sums: &mut Gradients,
) {
    let dim = weights.dim;
    let rows = users
        .values
        .chunks_exact(dim)
        .zip(users.gradient.chunks_exact_mut(dim));
    for (target_idx, (user, user_gradient)) in (first_target..).zip(rows) {
        let target = &batch.targets[target_idx];
        let negative = batch.click_negatives[target_idx] as usize; // rows are never negative
        let mut pair = Pair {
            user,
            user_gradient,
            row: target.row as usize, // likewise
            items,
        };
        if let (Some(is_click), true) = (target.click, label_weights.click > 0.0) {
            pair.click(is_click, label_weights.click, weights.click, sums);
            if is_click {
                let row = std::mem::replace(&mut pair.row, negative);
                pair.click(false, label_weights.click, weights.click, sums);
                pair.row = row;
            }
        }
        if let (Some(rating), true) = (target.rating, label_weights.rating > 0.0) {
            pair.rating(rating, label_weights.rating, weights.rating, sums);
        }
    }
}

impl Pair<'_> {
    /// `head` is `[m, a, c]`.
    fn click(&mut self, is_click: bool, weight: f32, head: &[f32], sums: &mut Gradients) {
        let dim = self.user.len();
        let (slope, intercept) = (head[dim], head[dim + 1]);
        let (along, product) = self.products(&head[..dim]);
        let score = product + self.items.bias[self.row];
        let logit = along + slope * score + intercept;
        let label = f32::from(u8::from(is_click));
        sums.loss += f64::from(weight * (softplus(logit) - logit * label));
        let gradient = weight * (sigmoid(logit) - label);
        sums.click[dim] += gradient * score;
        sums.click[dim + 1] += gradient;
        sums.bias[self.row] += gradient * slope;
        let mut direction = std::mem::take(&mut sums.click);
        self.add_gradients(gradient, &head[..dim], slope, &mut direction, sums);
        sums.click = direction;
    }

    /// `head` is `[m, c]`.
    fn rating(&mut self, rating: f32, weight: f32, head: &[f32], sums: &mut Gradients) {
        let dim = self.user.len();
        let (along, _) = self.products(&head[..dim]);
        let error = along + head[dim] - rating;
        sums.loss += f64::from(weight * error * error);
        let gradient = weight * 2.0 * error;
        sums.rating[dim] += gradient;
        let mut direction = std::mem::take(&mut sums.rating);
        self.add_gradients(gradient, &head[..dim], 0.0, &mut direction, sums);
        sums.rating = direction;
    }

    fn vector(&self) -> std::ops::Range<usize> {
        let dim = self.user.len();
        self.row * dim..(self.row + 1) * dim
    }

    /// `m·(u∘v)` and `u·v`.
    fn products(&self, direction: &[f32]) -> (f32, f32) {
        let vector = &self.items.vectors[self.vector()];
        let products = self.user.iter().zip(vector).map(|(u, v)| u * v);
        products
            .zip(direction)
            .fold((0.0, 0.0), |(along, sum), (product, m)| {
                (along + m * product, sum + product)
            })
    }

    /// Of `gradient·(m·(u∘v) + slope·u·v)` by `u`, `v` and `m`.
    fn add_gradients(
        &mut self,
        gradient: f32,
        direction: &[f32],
        slope: f32,
        direction_gradient: &mut [f32],
        sums: &mut Gradients,
    ) {
        let vector = &self.items.vectors[self.vector()];
        let vector_gradient = &mut sums.vectors[self.vector()];
        let user = self.user;
        for idx in 0..user.len() {
            let factor = gradient * (direction[idx] + slope);
            self.user_gradient[idx] += factor * vector[idx];
            vector_gradient[idx] += factor * user[idx];
        }
        let products: Vec<f32> = user.iter().zip(vector).map(|(u, v)| u * v).collect();
        add_multiple(&mut direction_gradient[..user.len()], gradient, &products);
    }
}

/// `ln(1 + eᶻ)`, without overflow.
fn softplus(z: f32) -> f32 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}
