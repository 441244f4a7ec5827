//! Optimizer of full steps: slow weights by strategy, id rows and biases row by row, prior weights.
//!
//! An anchor pulls slow weights back to where they were: `λ·(θ − θ*)` (L2-SP, Li et al. 2018), times the
//! squared gradients of old batches where they were measured, in the manner of EWC (Kirkpatrick et al. 2017;
//! its Fisher information squares the gradients of single examples).
//! Input: gradients of a batch. Not here: how they are made (`full_step`).

use rand::SeedableRng;
use rand::rngs::StdRng;
use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TensorGroup;

use super::full_step::{FullStepConfig, HostGradients};
use super::optimizer::{AdamW, RowAdam};
use super::strategy::{SlowState, Strategy, is_matrix};

/// Optimizer state of a full step.
#[derive(Debug, Clone)]
pub struct FullOptimizer {
    /// By slow tensor, in spec order; `None` where it stays.
    slow: Vec<Option<SlowState>>,
    strategy: Strategy,
    anchor: Option<Anchor>,
    id_rows: RowAdam,
    bias: RowAdam,
    prior: AdamW,
    pub(super) num_steps: u64,
}

/// Where slow weights are pulled to.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Slow tensors in spec order.
    weights: Vec<Vec<f32>>,
    /// Pull on each weight, parallel to `weights`.
    pull: Vec<Vec<f32>>,
}

impl Anchor {
    /// The same pull on every slow weight of `parameters`.
    #[must_use]
    pub fn even(parameters: &ParameterSet, pull: f32) -> Self {
        let weights = slow_tensors(parameters);
        let pull = weights
            .iter()
            .map(|values| vec![pull; values.len()])
            .collect();
        Self { weights, pull }
    }

    /// Adds to the pull how much the loss cares: `strength` times the square of every gradient given, over all of them.
    pub fn add_fisher(&mut self, gradients: &[HostGradients], strength: f32) {
        let share = strength / gradients.len().max(1) as f32;
        for gradients in gradients {
            for (pull, gradient) in self.pull.iter_mut().zip(&gradients.slow) {
                let gradient = gradient.iter().flatten();
                for (pull, g) in pull.iter_mut().zip(gradient) {
                    *pull += share * g * g;
                }
            }
        }
    }

    fn add_to(&self, parameters: &ParameterSet, gradients: &mut HostGradients) {
        let anchors = self.weights.iter().zip(&self.pull);
        let slow = slow_of(parameters).zip(&mut gradients.slow);
        for ((values, gradient), (weights, pull)) in slow.zip(anchors) {
            let Some(gradient) = gradient else { continue };
            let anchored = weights.iter().zip(pull);
            for ((g, value), (weight, pull)) in gradient.iter_mut().zip(values).zip(anchored) {
                *g += pull * (value - weight);
            }
        }
    }
}

fn slow_of(parameters: &ParameterSet) -> impl Iterator<Item = &Vec<f32>> {
    let shapes = parameters.shapes().into_iter();
    let all = shapes.zip(&parameters.tensors);
    all.filter(|(shape, _)| shape.group == TensorGroup::Slow)
        .map(|(_, values)| values)
}

/// Copies of the slow tensors, in spec order.
pub(crate) fn slow_tensors(parameters: &ParameterSet) -> Vec<Vec<f32>> {
    slow_of(parameters).cloned().collect()
}

impl FullOptimizer {
    /// Fresh state for `parameters`, everything of which is to move.
    #[must_use]
    pub fn new(parameters: &ParameterSet) -> Self {
        Self::with_strategy(parameters, Strategy::default(), 0)
    }

    /// Fresh state for `parameters`; `seed` is of the low-rank changes.
    #[must_use]
    pub fn with_strategy(parameters: &ParameterSet, strategy: Strategy, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shapes = parameters.shapes();
        let slow = shapes
            .iter()
            .filter(|shape| shape.group == TensorGroup::Slow);
        let dim = parameters.spec.embedding_dim as usize;
        Self {
            slow: slow.map(|shape| strategy.state(shape, &mut rng)).collect(),
            strategy,
            anchor: None,
            id_rows: RowAdam::new(parameters.num_items, dim),
            bias: RowAdam::new(parameters.num_items, 1),
            prior: AdamW::new(parameters.spec.half_lives_secs.len()),
            num_steps: 0,
        }
    }

    /// Holds slow weights by an anchor from now on.
    pub fn anchor(&mut self, anchor: Anchor) {
        self.anchor = Some(anchor);
    }

    /// Whether a step would move any slow weight.
    #[must_use]
    pub fn moves_slow(&self) -> bool {
        self.slow.iter().any(Option::is_some)
    }

    /// Makes room for new items.
    pub fn grow(&mut self, num_items: usize) {
        self.id_rows.grow(num_items);
        self.bias.grow(num_items);
    }

    /// Adds the pull of the anchor to the gradients of slow weights.
    pub(super) fn pull(&self, parameters: &ParameterSet, gradients: &mut HostGradients) {
        if let Some(anchor) = &self.anchor {
            anchor.add_to(parameters, gradients);
        }
    }

    /// One update by clipped gradients; `rows` are the items of the row gradients.
    pub(super) fn apply(
        &mut self,
        parameters: &mut ParameterSet,
        gradients: &HostGradients,
        rows: &[u32],
        config: &FullStepConfig,
    ) {
        self.num_steps += 1;
        let shapes = parameters.shapes();
        let tensors = shapes.iter().zip(&mut parameters.tensors);
        let slow = tensors.filter(|(shape, _)| shape.group == TensorGroup::Slow);
        let states = self.slow.iter_mut().zip(&gradients.slow);
        for ((shape, values), (state, gradient)) in slow.zip(states) {
            let (Some(state), Some(gradient)) = (state, gradient) else {
                continue;
            };
            let weight_decay = if is_matrix(shape) {
                config.weight_decay
            } else {
                0.0
            };
            let rate = config.learning_rate * self.strategy.rate(shape);
            state.step(values, gradient, rate, weight_decay);
        }
        let rates = [
            config.row_learning_rate,
            config.bias_learning_rate,
            config.prior_learning_rate,
        ];
        if rates.iter().any(|rate| *rate > 0.0) {
            self.apply_rows(parameters, gradients, rows, config);
        }
    }

    fn apply_rows(
        &mut self,
        parameters: &mut ParameterSet,
        gradients: &HostGradients,
        rows: &[u32],
        config: &FullStepConfig,
    ) {
        let dim = parameters.spec.embedding_dim as usize;
        let id_rows = parameters.tensor_mut("item.id_rows");
        for (gradient, row) in gradients.id_rows.chunks_exact(dim).zip(rows) {
            self.id_rows.step_row(
                id_rows,
                *row as usize,
                gradient,
                config.row_learning_rate,
                config.weight_decay,
            );
        }
        let bias = parameters.tensor_mut("item.bias");
        for (gradient, row) in gradients.bias.chunks_exact(1).zip(rows) {
            self.bias.step_row(
                bias,
                *row as usize,
                gradient,
                config.bias_learning_rate,
                0.0,
            );
        }
        let prior = parameters.tensor_mut("prior.weights");
        self.prior
            .step(prior, &gradients.prior, config.prior_learning_rate, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use shared_model::spec::ModelSpec;

    fn gradients_of(parameters: &ParameterSet, value: f32) -> HostGradients {
        let slow = slow_tensors(parameters).into_iter();
        HostGradients {
            slow: slow.map(|values| Some(vec![value; values.len()])).collect(),
            id_rows: Vec::new(),
            bias: Vec::new(),
            prior: vec![0.0; 3],
        }
    }

    #[test]
    fn an_anchor_pulls_by_distance_and_by_how_much_the_loss_cares() {
        let start = init_parameters(&ModelSpec::default(), 2, 1);
        let mut anchor = Anchor::even(&start, 0.5);
        let mut moved = start.clone();
        moved.tensor_mut("layers.0.query")[3] += 2.0;
        let query = |gradients: &HostGradients| {
            let shapes = start.shapes().into_iter();
            let mut slow = shapes.filter(|shape| shape.group == TensorGroup::Slow);
            let idx = slow.position(|shape| shape.name == "layers.0.query");
            let idx = idx.expect("the spec has it");
            gradients.slow[idx].clone().expect("a gradient")[3]
        };
        let mut gradients = gradients_of(&start, 0.0);
        anchor.add_to(&moved, &mut gradients);
        assert!((query(&gradients) - 1.0).abs() < 1e-5);
        anchor.add_fisher(&[gradients_of(&start, 1.0), gradients_of(&start, 3.0)], 0.1);
        let mut gradients = gradients_of(&start, 0.0);
        anchor.add_to(&moved, &mut gradients);
        assert!(
            (query(&gradients) - 2.0).abs() < 1e-5,
            "0.5 + 0.1·(1 + 9)/2 = 1"
        );
    }

    #[test]
    fn an_anchored_optimizer_stays_nearer() {
        let start = init_parameters(&ModelSpec::default(), 2, 1);
        let config = FullStepConfig {
            learning_rate: 0.01,
            ..FullStepConfig::still()
        };
        let distance = |optimizer: FullOptimizer| {
            let (mut parameters, mut optimizer) = (start.clone(), optimizer);
            for step in 0..60 {
                // A gradient that changes sign half of the time pulls nowhere for long; 0.2 of it is drift.
                let noise = if step % 2 == 0 { 1.2 } else { -0.8 };
                let mut gradients = gradients_of(&parameters, noise);
                optimizer.pull(&parameters, &mut gradients);
                optimizer.apply(&mut parameters, &gradients, &[], &config);
            }
            let pairs = slow_tensors(&parameters).concat().into_iter();
            let pairs = pairs.zip(slow_tensors(&start).concat());
            pairs.map(|(now, then)| (now - then).abs()).sum::<f32>()
        };
        let free = distance(FullOptimizer::new(&start));
        let mut held = FullOptimizer::new(&start);
        held.anchor(Anchor::even(&start, 20.0));
        let held = distance(held);
        assert!(held < 0.5 * free, "{held} held, {free} free");
    }
}
