//! What a student gets wrong in a batch of texts of one length.
//!
//! ```text
//! cosine = mean over texts of 1 − p_i·q_i
//! score  = mean over texts of KL(softmax_{j≠i}(q_i·q_j / T) ‖ softmax_{j≠i}(p_i·p_j / T))
//! hidden = Σ (h − g)² / Σ g²     over the tokens of texts that both cut into as many
//! ```
//! p, q: embeddings by student and teacher, unit vectors; h, g: hidden states of their last layers.
//! Relations between texts are taught as in Park et al. 2019 (relational distillation), with the probabilities of
//! Passalis & Tefas 2018; hidden states by their squared error as in TinyBERT (Jiao et al. 2020), without a projection
//! since both are of one width.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use shared_model::text::bert::mean_pool;

use super::lessons::Lesson;

/// Added to the similarity of a text with itself; finite, so that zero times it is zero.
const SELF_SCORE: f32 = -1.0e4;

/// How much each loss counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Embedding beside embedding.
    pub cosine: f32,
    /// Similarities within a batch.
    pub score: f32,
    /// Hidden states of the last layer.
    pub hidden: f32,
}

/// What the teacher says of a batch.
pub(super) struct Targets {
    /// `[num_texts, dim]`.
    embeddings: Tensor<2>,
    /// `[num_texts, len, dim]`, and `[num_texts, 1, 1]`: 1 where the teacher has as many tokens, else 0.
    hidden: Option<(Tensor<3>, Tensor<3>)>,
}

/// Unweighted, `[1]` each.
pub(super) struct Losses {
    pub(super) cosine: Tensor<1>,
    pub(super) score: Tensor<1>,
    pub(super) hidden: Tensor<1>,
}

impl Targets {
    /// Of texts that the student cuts into `len` tokens each.
    pub(super) fn of(lessons: &[&Lesson], len: usize, device: &Device) -> Self {
        let (num_texts, dim) = (lessons.len(), lessons[0].embedding.len());
        let embeddings: Vec<f32> = lessons
            .iter()
            .flat_map(|lesson| lesson.embedding.iter().copied())
            .collect();
        let mut hidden = vec![0.0; num_texts * len * dim];
        let mut is_aligned = vec![0.0; num_texts];
        let places = hidden.chunks_exact_mut(len * dim).zip(&mut is_aligned);
        for (lesson, (place, is_aligned)) in lessons.iter().zip(places) {
            if let Some(states) = lesson
                .hidden
                .as_ref()
                .filter(|states| states.len() == place.len())
            {
                place.copy_from_slice(states);
                *is_aligned = 1.0;
            }
        }
        let any_aligned = is_aligned.contains(&1.0);
        let hidden = any_aligned.then(|| {
            let hidden = TensorData::new(hidden, [num_texts, len, dim]);
            let is_aligned = TensorData::new(is_aligned, [num_texts, 1, 1]);
            (
                Tensor::from_data(hidden, device),
                Tensor::from_data(is_aligned, device),
            )
        });
        let embeddings = TensorData::new(embeddings, [num_texts, dim]);
        Self {
            embeddings: Tensor::from_data(embeddings, device),
            hidden,
        }
    }
}

impl Losses {
    /// Of a batch whose last hidden states are `states`.
    ///
    /// # Shapes
    /// `states`: `[num_texts, len, dim]`.
    pub(super) fn of(states: Tensor<3>, targets: &Targets, temperature: f32) -> Self {
        let embeddings = mean_pool(states.clone(), None);
        let [cosine, score] = of_embeddings(embeddings, targets.embeddings.clone(), temperature);
        let hidden = match &targets.hidden {
            None => Tensor::zeros([1], &states.device()),
            Some((expected, is_aligned)) => {
                let errors = (states - expected.clone()) * is_aligned.clone();
                errors.powi_scalar(2).sum() / expected.clone().powi_scalar(2).sum()
            }
        };
        Self {
            cosine,
            score,
            hidden,
        }
    }

    /// Sum by weight, `[1]`.
    pub(super) fn weighted(&self, weights: &LossWeights) -> Tensor<1> {
        self.cosine.clone() * weights.cosine
            + self.score.clone() * weights.score
            + self.hidden.clone() * weights.hidden
    }
}

/// Losses by the embeddings alone: cosine and score.
///
/// # Shapes
/// Two times `[num_texts, dim]`, unit rows → `[1]` each.
pub(super) fn of_embeddings(
    embeddings: Tensor<2>,
    expected: Tensor<2>,
    temperature: f32,
) -> [Tensor<1>; 2] {
    let num_texts = embeddings.dims()[0];
    let cosine = (embeddings.clone() * expected.clone()).sum() / num_texts as f64; // at most 65,536
    let score = if num_texts > 2 {
        score_loss(embeddings, expected, temperature)
    } else {
        Tensor::zeros([1], &embeddings.device()) // with one other text there is nothing to choose
    };
    [-cosine + 1.0, score]
}

/// # Shapes
/// Two times `[num_texts, dim]`, unit rows → `[1]`.
fn score_loss(embeddings: Tensor<2>, expected: Tensor<2>, temperature: f32) -> Tensor<1> {
    let num_texts = embeddings.dims()[0];
    let itself = Tensor::<2>::eye(num_texts, &expected.device()) * SELF_SCORE;
    let similarities =
        |rows: Tensor<2>| rows.clone().matmul(rows.transpose()) / temperature + itself.clone();
    let expected = similarities(expected);
    let actual = log_softmax(similarities(embeddings), 1);
    let differences = log_softmax(expected.clone(), 1) - actual;
    (softmax(expected, 1) * differences).sum() / num_texts as f64 // at most 65,536
}
