//! Losses of a full step: next item, click, rating, on weights and rows that keep their gradients.
//!
//! Next item: softmax over all items of a small catalogue or over uniform negatives of a large one, with
//! the logQ correction `+ ln(num_items / num_negatives)` on the negatives (Bengio & Senécal 2008).
//! Click: binary cross-entropy, one random negative per positive. Rating: squared error.

use std::sync::Arc;

use burn::tensor::activation::{softmax, softplus};
use burn::tensor::{Device, Distribution, Int, Tensor};
use shared_model::model::parameters::ParameterSet;
use shared_model::model::ranker::{Dropout, Ranker, ints, item_vectors, matrix};
use shared_model::model::sequence::SequenceBatch;

use super::full_batch::Batch;
use super::full_step::{FullStepConfig, gather};
use super::objective::Objective;
use super::teacher::{Lesson, Teacher};

/// Weights and rows of the batch on the device, as leaves with gradients.
pub(super) struct Leaves {
    pub(super) ranker: Ranker,
    pub(super) id_rows: Tensor<2>,
    pub(super) bias: Tensor<2>,
    /// `[num_half_lives, 1]`.
    pub(super) prior: Tensor<2>,
    vectors: Tensor<2>,
}

impl Leaves {
    pub(super) fn new(
        parameters: &ParameterSet,
        batch: &Batch,
        id_dropout: f64,
        device: &Device,
    ) -> Self {
        let text = text_rows(parameters, batch, device);
        Self::with_text(parameters, batch, text, id_dropout, device)
    }

    /// The same with other texts, `[batch.rows.len(), text_dim]`.
    fn with_text(
        parameters: &ParameterSet,
        batch: &Batch,
        text: Option<Tensor<2>>,
        id_dropout: f64,
        device: &Device,
    ) -> Self {
        let ranker = Ranker::init(parameters, device).require_grad();
        let gathered = |name, num_cols| gathered(parameters, batch, name, num_cols, device);
        let spec = &parameters.spec;
        let features = gathered("item.features", spec.feature_dim as usize);
        let id_rows = gathered("item.id_rows", spec.embedding_dim as usize)
            .expect("dim is at least 4")
            .require_grad();
        let bias = gathered("item.bias", 1).expect("one column").require_grad();
        let content = ranker.content_vectors(text, features);
        let prior = parameters.tensor("prior.weights");
        let prior = matrix(prior, prior.len(), 1, device).require_grad();
        let mut kept_rows = id_rows.clone();
        if id_dropout > 0.0 && content.is_some() {
            let one_per_row = Tensor::<2>::empty([batch.rows.len(), 1], device);
            let is_kept = one_per_row.random_like(Distribution::Bernoulli(1.0 - id_dropout));
            kept_rows = kept_rows * is_kept;
        }
        let vectors = item_vectors(content, kept_rows);
        Self {
            ranker,
            id_rows,
            bias,
            prior,
            vectors,
        }
    }
}

/// Rows of a table for the items of the batch; `None` for a table without columns.
fn gathered(
    parameters: &ParameterSet,
    batch: &Batch,
    name: &str,
    num_cols: usize,
    device: &Device,
) -> Option<Tensor<2>> {
    let num_rows = batch.rows.len();
    let rows = || gather(parameters.tensor(name), num_cols, &batch.rows);
    (num_cols > 0).then(|| matrix(&rows(), num_rows, num_cols, device))
}

fn text_rows(parameters: &ParameterSet, batch: &Batch, device: &Device) -> Option<Tensor<2>> {
    let text_dim = parameters.spec.text_dim as usize;
    gathered(parameters, batch, "item.text", text_dim, device)
}

pub(super) fn batch_loss(
    leaves: &Leaves,
    batch: &Batch,
    config: &FullStepConfig,
    lesson: Option<&Lesson>,
    device: &Device,
) -> Tensor<1> {
    let users = target_users(leaves, batch, Dropout(config.dropout), device);
    let rows = target_rows(batch, device);
    let products = users.clone() * leaves.vectors.clone().select(0, rows.clone());
    let scores = products.clone().sum_dim(1) + leaves.bias.clone().select(0, rows);

    let logits = next_item_logits(leaves, batch, &users, device);
    let mut loss = next_item_loss(
        leaves,
        batch,
        &config.objective,
        logits.clone(),
        &scores,
        device,
    );
    if let Some(distillation) = &config.distillation {
        let taught = match (&distillation.teacher, lesson) {
            (Teacher::Versions(versions), _) => {
                let shares = mean_shares(versions, batch, device);
                shares.map(|shares| distillation_loss(batch, logits, shares, device))
            }
            (Teacher::Texts(_), Some(lesson)) => Some(lesson_loss(lesson, logits, device)),
            (Teacher::Texts(_), None) => None,
        };
        if let Some(taught) = taught {
            loss = loss + taught * distillation.weight;
        }
    }
    let (click_head, rating_head) = leaves.ranker.heads();
    if config.click_weight > 0.0 && batch.targets.iter().any(|target| target.click.is_some()) {
        let click = click_loss(
            leaves,
            batch,
            &users,
            &products,
            &scores,
            &click_head,
            device,
        );
        loss = loss + click * config.click_weight;
    }
    if config.rating_weight > 0.0 && batch.targets.iter().any(|target| target.rating.is_some()) {
        loss = loss + rating_loss(batch, &products, &rating_head, device) * config.rating_weight;
    }
    loss
}

/// Next-item loss over a batch where only item texts learn: histories are read with the texts as they are, and
/// the gradient reaches targets and candidates through `fresh`, texts of the distinct local rows `fresh_rows`.
///
/// # Shapes
/// `fresh`: `[fresh_rows.len(), text_dim]`, on `device`.
pub(super) fn text_loss(
    parameters: &ParameterSet,
    batch: &Batch,
    fresh_rows: &[i32],
    fresh: Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let known = text_rows(parameters, batch, device).expect("a spec with texts");
    let frozen = Leaves::with_text(parameters, batch, Some(known.clone()), 0.0, device);
    let users = target_users(&frozen, batch, Dropout::NONE, device).detach();
    let num_rows = batch.rows.len() as i32; // fits: a batch is small, and so below
    let mut sources: Vec<i32> = (0..num_rows).collect();
    for (row, source) in fresh_rows.iter().zip(num_rows..) {
        sources[*row as usize] = source;
    }
    let text = Tensor::cat(vec![known, fresh], 0).select(0, ints(&sources, device));
    let leaves = Leaves::with_text(parameters, batch, Some(text), 0.0, device);
    let targets = target_rows(batch, device);
    let products = users.clone() * leaves.vectors.clone().select(0, targets.clone());
    let scores = products.sum_dim(1) + leaves.bias.clone().select(0, targets);
    let logits = next_item_logits(&leaves, batch, &users, device);
    next_item_loss(
        &leaves,
        batch,
        &Objective::default(),
        logits,
        &scores,
        device,
    )
}

impl Leaves {
    /// What the encoder makes of sequences, `[num_sequences, num_positions, embedding_dim]`.
    pub(super) fn hidden(&self, sequences: &SequenceBatch, dropout: Dropout) -> Tensor<3> {
        self.ranker.forward(&self.vectors, sequences, dropout)
    }
}

/// User vectors at the targets, `[num_targets, embedding_dim]`.
fn target_users(leaves: &Leaves, batch: &Batch, dropout: Dropout, device: &Device) -> Tensor<2> {
    let hidden = leaves.hidden(&batch.sequences, dropout);
    let [num_sequences, num_positions, dim] = hidden.dims();
    let positions: Vec<i32> = batch.targets.iter().map(|target| target.position).collect();
    hidden
        .reshape([num_sequences * num_positions, dim])
        .select(0, ints(&positions, device))
}

/// Scores of the candidates at every target, `[num_targets, num_candidates]`.
fn next_item_logits(
    leaves: &Leaves,
    batch: &Batch,
    users: &Tensor<2>,
    device: &Device,
) -> Tensor<2> {
    let candidates = ints(&batch.candidates, device);
    let vectors = if batch.is_full_softmax {
        leaves.vectors.clone()
    } else {
        leaves.vectors.clone().select(0, candidates.clone())
    };
    let bias = if batch.is_full_softmax {
        leaves.bias.clone()
    } else {
        leaves.bias.clone().select(0, candidates)
    };
    let prior = &batch.prior;
    let prior_scores = prior_rows(leaves, batch, &prior.of_candidates, device)
        .reshape([prior.num_moments, batch.candidates.len()])
        .select(0, ints(&prior.moments, device));
    users.clone().matmul(vectors.transpose()) + bias.transpose() + prior_scores
}

/// Prior features times their weights, `[num_rows, 1]`.
fn prior_rows(leaves: &Leaves, batch: &Batch, features: &[f32], device: &Device) -> Tensor<2> {
    let num_half_lives = batch.prior.num_half_lives;
    let num_rows = features.len() / num_half_lives;
    matrix(features, num_rows, num_half_lives, device).matmul(leaves.prior.clone())
}

/// Weights of the targets as next items, and their sum but at least 1.
fn target_weights(batch: &Batch, device: &Device) -> (Tensor<2>, f32) {
    let targets = batch.targets.iter();
    let weights: Vec<f32> = targets.map(|target| target.target_weight).collect();
    let sum = weights.iter().sum::<f32>().max(1.0);
    (matrix(&weights, weights.len(), 1, device), sum)
}

/// Local rows of the targets.
fn target_rows(batch: &Batch, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = batch.targets.iter().map(|target| target.row).collect();
    ints(&rows, device)
}

/// Mean over next-item targets of `logsumexp(candidates ∪ target) − target`, on logits that are adjusted for
/// popularity, and of the expected harm; see `objective`.
fn next_item_loss(
    leaves: &Leaves,
    batch: &Batch,
    objective: &Objective,
    mut logits: Tensor<2>,
    scores: &Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let (weights, num_next) = target_weights(batch, device);
    let mut scores = scores.clone() + prior_rows(leaves, batch, &batch.prior.of_targets, device);
    let (targets, candidates) = (target_rows(batch, device), ints(&batch.candidates, device));
    let column = |values: Vec<f32>| matrix(&values, values.len(), 1, device);
    if let Some(offsets) = objective.offsets(&batch.rows).map(column) {
        logits = logits + offsets.clone().select(0, candidates.clone()).transpose();
        scores = scores + offsets.select(0, targets.clone());
    }
    if !batch.is_full_softmax {
        let hits = accidental_hits(batch, device);
        logits = Tensor::cat(vec![logits + hits + batch.log_q, scores.clone()], 1);
    }
    let mut losses = log_sum_exp(logits.clone()) - scores;
    if let Some(harm) = objective.harm(&batch.rows).map(column) {
        let num_candidates = batch.candidates.len();
        let shares = softmax(logits, 1);
        let exposed = shares
            .clone()
            .slice([0..batch.targets.len(), 0..num_candidates]);
        losses = losses + exposed.matmul(harm.clone().select(0, candidates));
        if !batch.is_full_softmax {
            let beside = shares.slice([0..batch.targets.len(), num_candidates..num_candidates + 1]);
            losses = losses + beside * harm.select(0, targets);
        }
    }
    (losses * weights).sum() / num_next
}

/// What these versions say of the candidates, without dropout: the mean of their probabilities; nothing of none.
fn mean_shares(
    versions: &[Arc<ParameterSet>],
    batch: &Batch,
    device: &Device,
) -> Option<Tensor<2>> {
    let shares = versions.iter().map(|version| {
        let leaves = Leaves::new(version, batch, 0.0, device);
        let users = target_users(&leaves, batch, Dropout::NONE, device);
        softmax(next_item_logits(&leaves, batch, &users, device).detach(), 1)
    });
    let sum = shares.reduce(|sum, shares| sum + shares)?;
    Some(sum / versions.len() as f32) // a few
}

/// Mean over next-item targets of the cross-entropy against a teacher's probabilities of the candidates.
fn distillation_loss(
    batch: &Batch,
    logits: Tensor<2>,
    shares: Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let (weights, num_next) = target_weights(batch, device);
    let losses = log_sum_exp(logits.clone()) - (shares * logits).sum_dim(1);
    (losses * weights).sum() / num_next
}

/// Mean over the targets of a lesson of the cross-entropy against what its teacher says of some candidates.
fn lesson_loss(lesson: &Lesson, logits: Tensor<2>, device: &Device) -> Tensor<1> {
    let (num_targets, num_candidates) = (lesson.targets.len(), lesson.candidates.len());
    let logits = logits
        .select(0, ints(&lesson.targets, device))
        .select(1, ints(&lesson.candidates, device));
    let shares = matrix(&lesson.shares, num_targets, num_candidates, device);
    let losses = log_sum_exp(logits.clone()) - (shares * logits).sum_dim(1);
    losses.mean()
}

/// −∞ (as a large finite number) where a negative is the target itself.
fn accidental_hits(batch: &Batch, device: &Device) -> Tensor<2> {
    let num_candidates = batch.candidates.len();
    let mut mask = vec![0.0_f32; batch.targets.len() * num_candidates];
    for (row, target) in mask.chunks_exact_mut(num_candidates).zip(&batch.targets) {
        for (cell, candidate) in row.iter_mut().zip(&batch.candidates) {
            if *candidate == target.row {
                *cell = -1.0e9;
            }
        }
    }
    matrix(&mask, batch.targets.len(), num_candidates, device)
}

/// `ln Σ exp` over the last axis, `[n, m]` → `[n, 1]`.
pub(super) fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    let max = logits.clone().detach().max_dim(1);
    (logits - max.clone()).exp().sum_dim(1).log() + max
}

fn click_loss(
    leaves: &Leaves,
    batch: &Batch,
    users: &Tensor<2>,
    products: &Tensor<2>,
    scores: &Tensor<2>,
    head: &Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let negatives = ints(&batch.click_negatives, device);
    let negative_products = users.clone() * leaves.vectors.clone().select(0, negatives.clone());
    let negative_scores =
        negative_products.clone().sum_dim(1) + leaves.bias.clone().select(0, negatives);
    let labels: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| f32::from(u8::from(target.click == Some(true))))
        .collect();
    let labelled: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| f32::from(u8::from(target.click.is_some())))
        .collect();
    let positives: Vec<f32> = labels.clone();
    let num_labelled = labelled.iter().sum::<f32>() + positives.iter().sum::<f32>();
    let column = |values: &[f32]| matrix(values, values.len(), 1, device);
    let logits = click_logits(products.clone(), scores.clone(), head);
    let losses = (softplus(logits.clone(), 1.0) - logits * column(&labels)) * column(&labelled);
    let negative_logits = click_logits(negative_products, negative_scores, head);
    let negative_losses = softplus(negative_logits, 1.0) * column(&positives);
    (losses.sum() + negative_losses.sum()) / num_labelled.max(1.0)
}

/// `m·(u∘v) + a·score + b` with `head = [m, a, b]`.
fn click_logits(products: Tensor<2>, scores: Tensor<2>, head: &Tensor<2>) -> Tensor<2> {
    let dim = products.dims()[1];
    let direction = head.clone().slice([0..1, 0..dim]).transpose();
    let slope = head.clone().slice([0..1, dim..dim + 1]);
    let intercept = head.clone().slice([0..1, dim + 1..dim + 2]);
    products.matmul(direction) + scores * slope + intercept
}

fn rating_loss(
    batch: &Batch,
    products: &Tensor<2>,
    head: &Tensor<2>,
    device: &Device,
) -> Tensor<1> {
    let dim = products.dims()[1];
    let ratings: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| target.rating.unwrap_or(0.0))
        .collect();
    let labelled: Vec<f32> = batch
        .targets
        .iter()
        .map(|target| f32::from(u8::from(target.rating.is_some())))
        .collect();
    let direction = head.clone().slice([0..1, 0..dim]).transpose();
    let predicted = products.clone().matmul(direction) + head.clone().slice([0..1, dim..dim + 1]);
    let errors = (predicted - matrix(&ratings, ratings.len(), 1, device)).powi_scalar(2);
    let num_labelled = labelled.iter().sum::<f32>().max(1.0);
    (errors * matrix(&labelled, labelled.len(), 1, device)).sum() / num_labelled
}

/// `ln Σ exp(scores)` of host values.
pub(crate) fn host_log_sum_exp(scores: &[f32]) -> f32 {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    scores
        .iter()
        .map(|score| (score - max).exp())
        .sum::<f32>()
        .ln()
        + max
}
