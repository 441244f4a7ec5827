//! The few weights that all items share: of taste, of the item prior, of the gain by neighbours.
//!
//! ```text
//! s_pi = τ·t_pi + b_i + Σ_h w_h·f_pih + g·gain_pi      gradients from the published scores s, by AdamW
//! ```
//! The published version had not seen these events, so what it said of them tells how far each part of the score
//! can be trusted; a fit cannot, since it has seen all it is asked about.

use shared_model::model::parameters::ParameterSet;
use shared_model::spec::TASTE_WEIGHT;

use super::{FastOptimizer, FastStepConfig, ScoredEvents};
use crate::train::losses::host_log_sum_exp;

/// Bounds of the weight of taste: no stream makes a page rank against it, or by it alone.
const TASTE_WEIGHT_MIN: f32 = 0.05;
const TASTE_WEIGHT_MAX: f32 = 5.0;

/// One step of each. A gradient that is not finite moves nothing.
pub(super) fn step(
    parameters: &mut ParameterSet,
    optimizer: &mut FastOptimizer,
    events: &ScoredEvents,
    config: &FastStepConfig,
) {
    let normalizers = normalizers(events);
    if parameters.spec.has_taste_weight {
        let gradient = taste_gradient(events, &normalizers);
        if gradient.is_finite() {
            let weight = parameters.tensor_mut(TASTE_WEIGHT);
            let rate = config.taste_learning_rate;
            optimizer.taste.step(weight, &[gradient], rate, 0.0);
            weight[0] = weight[0].clamp(TASTE_WEIGHT_MIN, TASTE_WEIGHT_MAX);
        }
    }
    let gradient = neighbour_gradient(events, &normalizers);
    if let Some(gradient) = gradient.filter(|gradient| gradient.is_finite()) {
        let weight = parameters.tensor_mut("neighbour.weight");
        let rate = config.prior_learning_rate;
        optimizer.neighbour.step(weight, &[gradient], rate, 0.0);
    }
    let gradient = prior_gradient(events, &normalizers);
    if gradient.iter().all(|g| g.is_finite()) {
        let weights = parameters.tensor_mut("prior.weights");
        let rate = config.prior_learning_rate;
        optimizer.prior.step(weights, &gradient, rate, 0.0);
    }
}

/// `ln Σ_i e^{s_pi}` of the published scores, by event.
fn normalizers(events: &ScoredEvents) -> Vec<f32> {
    let rows = events.scores.chunks_exact(events.num_items);
    rows.map(host_log_sum_exp).collect()
}

/// Gradient of the mean loss to the prior weights, from the published scores:
/// `∂/∂w_h = Σ_p weight_p (Σ_i softmax_pi f_ih − f_target,h)`.
fn prior_gradient(events: &ScoredEvents, normalizers: &[f32]) -> Vec<f32> {
    let num_items = events.num_items;
    let num_half_lives = events
        .prior_features
        .first()
        .map_or(0, |features| features.len() / num_items);
    let mut gradient = vec![0.0_f32; num_half_lives];
    let weight_sum = events.weights.iter().sum::<f32>().max(1.0);
    for (event_idx, target) in events.targets.iter().enumerate() {
        let scores = &events.scores[event_idx * num_items..][..num_items];
        let features = &events.prior_features[events.moments[event_idx] as usize];
        let normalizer = normalizers[event_idx];
        let weight = events.weights[event_idx] / weight_sum;
        for (score, row) in scores.iter().zip(features.chunks_exact(num_half_lives)) {
            let share = (score - normalizer).exp() * weight;
            for (cell, feature) in gradient.iter_mut().zip(row) {
                *cell += share * feature;
            }
        }
        let target_row = &features[*target as usize * num_half_lives..][..num_half_lives];
        for (cell, feature) in gradient.iter_mut().zip(target_row) {
            *cell -= weight * feature;
        }
    }
    gradient
}

/// Gradient of the mean loss to the weight of taste, from the published scores:
/// `Σ_p weight_p (Σ_i softmax_pi u_p·v_i − u_p·v_target)`.
fn taste_gradient(events: &ScoredEvents, normalizers: &[f32]) -> f32 {
    let weight_sum = events.weights.iter().sum::<f32>().max(1.0);
    let scores = events.scores.chunks_exact(events.num_items);
    let tastes = events.tastes.chunks_exact(events.num_items);
    let labelled = events.targets.iter().zip(&events.weights);
    let mut gradient = 0.0;
    for (((scores, tastes), normalizer), (target, weight)) in
        scores.zip(tastes).zip(normalizers).zip(labelled)
    {
        let terms = scores.iter().zip(tastes);
        let expected: f32 = terms
            .map(|(score, taste)| (score - normalizer).exp() * taste)
            .sum();
        gradient += weight / weight_sum * (expected - tastes[*target as usize]);
    }
    gradient
}

/// Gradient of the mean loss to the weight of the gain by neighbours, from the published scores:
/// `Σ_p weight_p (Σ_i softmax_pi gain_pi − gain_p,target)`; `None` where nothing gains.
fn neighbour_gradient(events: &ScoredEvents, normalizers: &[f32]) -> Option<f32> {
    let weight_sum = events.weights.iter().sum::<f32>().max(1.0);
    let mut gradient = None;
    let gaining = events.neighbour_gains.iter().enumerate();
    for (event_idx, gains) in gaining.filter(|(_, gains)| !gains.is_empty()) {
        let scores = &events.scores[event_idx * events.num_items..][..events.num_items];
        let normalizer = normalizers[event_idx];
        let target = events.targets[event_idx];
        for (item_idx, gain) in gains {
            let share = (scores[*item_idx as usize] - normalizer).exp();
            let is_target = f32::from(u8::from(*item_idx == target));
            let part = events.weights[event_idx] / weight_sum * (share - is_target) * gain;
            gradient = Some(gradient.unwrap_or(0.0) + part);
        }
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::super::tests::{step as fast_step, tiny};
    use super::*;

    #[test]
    fn neighbours_that_were_taken_gain_weight() {
        let (_, mut events) = tiny();
        // Five items with equal scores: each has a share of a fifth.
        let expected = 0.5 * ((0.2 - 1.0) * 2.0 + 0.2 * 1.0);
        let actual = neighbour_gradient(&events, &normalizers(&events)).expect("two items gain");
        assert!((actual - expected).abs() < 1e-6);
        events.targets = vec![0, 0];
        assert!(
            neighbour_gradient(&events, &normalizers(&events)) > Some(0.0),
            "they were wrong"
        );
        events.neighbour_gains = vec![Vec::new(); 2];
        assert_eq!(neighbour_gradient(&events, &normalizers(&events)), None);
    }

    /// Mean loss of events whose scores are `weight·taste + rest`.
    fn loss(events: &mut ScoredEvents, rest: &[f32], weight: f32) -> f32 {
        let tastes = events.tastes.iter().zip(rest);
        events.scores = tastes.map(|(taste, rest)| weight * taste + rest).collect();
        let rows = events.scores.chunks_exact(events.num_items);
        let pairs = rows.zip(&events.targets).zip(&events.weights);
        let losses = pairs.map(|((row, target), weight)| {
            weight * (host_log_sum_exp(row) - row[*target as usize])
        });
        losses.sum::<f32>() / events.weights.iter().sum::<f32>()
    }

    #[test]
    fn the_gradient_of_taste_is_that_of_the_loss() {
        let (_, mut events) = tiny();
        events.weights = vec![1.0, 0.5];
        events.tastes = (0..10).map(|idx| (idx as f32 * 1.7).sin() * 2.0).collect();
        let rest: Vec<f32> = (0..10).map(|idx| (idx as f32).cos()).collect();
        let difference = loss(&mut events, &rest, 0.81) - loss(&mut events, &rest, 0.79);
        loss(&mut events, &rest, 0.8);
        let actual = taste_gradient(&events, &normalizers(&events));
        assert!(
            (actual - difference / 0.02).abs() < 1e-3,
            "{actual}, {difference}"
        );
    }

    #[test]
    fn taste_that_misleads_loses_weight_down_to_its_bound_and_taste_that_tells_gains() {
        for (taste_of_target, rises) in [(-2.0, false), (2.0, true)] {
            let (mut parameters, mut events) = tiny();
            parameters.spec.has_taste_weight = true;
            let mut parameters = crate::train::init::init_parameters(&parameters.spec, 5, 1);
            parameters.tensor_mut("item.id_rows").fill(0.1);
            events.tastes = vec![0.0; 10];
            (events.tastes[3], events.tastes[8]) = (taste_of_target, taste_of_target);
            for _ in 0..200 {
                fast_step(&mut parameters, &events).expect("finite");
            }
            let weight = parameters.taste_weight();
            if rises {
                assert!(weight > 1.05, "{weight}");
            } else {
                assert!((TASTE_WEIGHT_MIN..0.95).contains(&weight), "{weight}");
            }
        }
    }
}
