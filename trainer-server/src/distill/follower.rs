//! A student that follows its teacher by a change of low rank: its file stays, and pages fetch what changed.
//!
//! Embeddings and the similarities between them are taught, hidden states are not: factors beside queries and values
//! (`shared_model::text::low_rank`) are too few for them.

use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shared_model::text::{BertTextEncoder, LowRankChange, TokenizedText};

use super::distiller::{StepReport, warmed_share};
use super::lessons::{Lesson, Lessons};
use super::losses::of_embeddings;
use super::{DistillError, DistillOptions};
use crate::train::module_gradients::read_values;
use crate::train::text_step::TextTuner;

/// Texts of a step: their similarities among each other are what is learned, too.
const NUM_TEXTS: usize = 48;

/// The change of `student`, as it was loaded, by which it embeds as the teacher of `lessons`; goes on from `earlier`.
/// `on_step` hears of every step and ends it by `false`.
///
/// # Errors
/// A setting is out of bounds, the widths differ, there are no lessons, a text was refused, or loss or gradient is not
/// finite.
pub fn follow(
    student: &BertTextEncoder,
    earlier: Option<LowRankChange>,
    rank: usize,
    lessons: &Lessons,
    options: &DistillOptions,
    mut on_step: impl FnMut(StepReport) -> bool,
) -> Result<LowRankChange, DistillError> {
    options.check()?;
    if student.dim() != lessons.dim {
        let (student, teacher) = (student.dim(), lessons.dim);
        return Err(DistillError::OtherWidth { student, teacher });
    }
    if lessons.lessons.is_empty() {
        return Err(DistillError::NoTexts);
    }
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut tuner = match earlier {
        Some(earlier) => TextTuner::from_change(earlier),
        None => TextTuner::new(student, rank, &mut rng)?,
    };
    let mut order: Vec<usize> = Vec::new();
    for step in 0..options.num_steps {
        if order.is_empty() {
            order = (0..lessons.lessons.len()).collect();
            order.shuffle(&mut rng);
        }
        let chosen = order.split_off(order.len().saturating_sub(NUM_TEXTS));
        let batch: Vec<&Lesson> = chosen.iter().map(|idx| &lessons.lessons[*idx]).collect();
        let change = tuner.change();
        let (mut report, mut gradient) = differentiate(student, change, &batch, step, options)?;
        let rate = options.learning_rate as f32 * warmed_share(step, options.num_steps); // at most 1
        let norm = tuner.apply(&mut gradient, rate, options.gradient_norm_max);
        if !norm.is_finite() {
            return Err(DistillError::GradientNotFinite { norm, step });
        }
        report.gradient_norm = norm;
        if !on_step(report) {
            break;
        }
    }
    Ok(tuner.change().clone())
}

/// Losses of a batch and the gradient of all factors.
fn differentiate(
    student: &BertTextEncoder,
    change: &LowRankChange,
    batch: &[&Lesson],
    step: usize,
    options: &DistillOptions,
) -> Result<(StepReport, Vec<f32>), DistillError> {
    let texts: Vec<String> = batch.iter().map(|lesson| lesson.text.clone()).collect();
    let tokens: Vec<TokenizedText> = student.tokenize(&texts)?;
    let learning = student.encoder().learning(change);
    let embeddings = learning.forward(&tokens)?;
    let expected: Vec<f32> = batch
        .iter()
        .flat_map(|lesson| lesson.embedding.iter().copied())
        .collect();
    let expected = TensorData::new(expected, embeddings.dims());
    let expected = Tensor::<2>::from_data(expected, learning.device());
    let [cosine, score] = of_embeddings(embeddings, expected, options.temperature);
    let weights = &options.weights;
    let loss = cosine.clone() * weights.cosine + score.clone() * weights.score;
    let values = read_values(Tensor::cat(vec![loss.clone(), cosine, score], 0))?;
    if !values[0].is_finite() {
        let loss = values[0];
        return Err(DistillError::LossNotFinite { loss, step });
    }
    let report = StepReport {
        step,
        num_steps: options.num_steps,
        cosine: 1.0 - values[1],
        score_loss: values[2],
        hidden_loss: 0.0,
        gradient_norm: 0.0,
    };
    Ok((report, learning.gradients(&loss.backward())?))
}
