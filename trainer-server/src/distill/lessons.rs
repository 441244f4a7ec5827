//! Lessons: what a teacher says of texts, computed once and kept.
//!
//! Of every text its embedding; of as many as fit into [`HIDDEN_BYTES_MAX`] the hidden states of the last layer too.

use shared_model::text::{BertTextEncoder, TokenizedText};

use super::views::with_views;
use super::{DistillError, DistillOptions};

/// Hidden states that are kept: those of some 40,000 titles of 8 tokens at MiniLM's width.
const HIDDEN_BYTES_MAX: usize = 512 << 20;
/// Texts between two words of progress.
const NUM_TEXTS_AT_ONCE: usize = 256;

/// Texts, and what a teacher says of them.
#[derive(Debug, Clone)]
pub struct Lessons {
    pub(super) dim: usize,
    pub(super) lessons: Vec<Lesson>,
}

#[derive(Debug, Clone)]
pub(super) struct Lesson {
    pub(super) text: String,
    /// `[dim]`, of length 1.
    pub(super) embedding: Vec<f32>,
    /// `[tokens of the teacher, dim]`, row-major.
    pub(super) hidden: Option<Vec<f32>>,
}

impl Lessons {
    /// Asks `teacher` about `texts` and views of them. `on_texts` hears how many are done of how many, and ends it by
    /// `false`: the lessons made until then are given.
    ///
    /// # Errors
    /// A setting is out of bounds, there is no text, the tokenizer or the device failed, or an embedding is not finite.
    pub fn make(
        teacher: &BertTextEncoder,
        texts: &[String],
        options: &DistillOptions,
        mut on_texts: impl FnMut(usize, usize) -> bool,
    ) -> Result<Self, DistillError> {
        options.check()?;
        let stride = texts.len().div_ceil(options.num_texts_max).max(1);
        let chosen: Vec<&String> = texts.iter().step_by(stride).collect();
        if chosen.is_empty() {
            return Err(DistillError::NoTexts);
        }
        let texts = with_views(&chosen, options.num_views, options.seed);
        let dim = teacher.dim();
        let mut hidden_bytes_left = match options.weights.hidden {
            0.0 => 0,
            _ => HIDDEN_BYTES_MAX,
        };
        let num_texts = texts.len();
        let mut lessons = Vec::with_capacity(num_texts);
        for texts in texts.chunks(NUM_TEXTS_AT_ONCE) {
            let tokens: Vec<TokenizedText> = teacher.tokenize(texts)?;
            let states = teacher.encoder().hidden_states(&tokens)?;
            for (text, hidden) in texts.iter().zip(states) {
                let hidden_bytes = size_of_val(hidden.as_slice());
                let embedding = unit_mean(&hidden, dim);
                let is_kept = hidden_bytes <= hidden_bytes_left;
                hidden_bytes_left -= if is_kept { hidden_bytes } else { 0 };
                lessons.push(Lesson {
                    text: text.clone(),
                    embedding,
                    hidden: is_kept.then_some(hidden),
                });
            }
            if !on_texts(lessons.len(), num_texts) {
                break;
            }
        }
        Ok(Self { dim, lessons })
    }

    /// Number of texts, views included.
    #[must_use]
    pub fn num_texts(&self) -> usize {
        self.lessons.len()
    }
}

/// Mean of the rows, of length 1.
fn unit_mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        sum.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += value);
    }
    let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        sum.iter_mut().for_each(|value| *value /= norm);
    }
    sum
}
