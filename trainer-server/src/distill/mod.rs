//! Distillation: a smaller text encoder learns to embed as a larger one does (Hinton et al. 2015).
//!
//! ```text
//! texts ─► views (what visitors type) ─► lessons (what the teacher says) ─► distiller ─► parts of the student
//! ```
//! The student has the teacher's width, since the rows of a model were made by the teacher, and fewer or narrower layers,
//! fewer heads or a vocabulary of its own. All its weights learn, word embeddings too.
//! Lessons are made once and may be learned by several students; a student that goes on from an earlier one follows a
//! teacher that has moved in fewer steps, or by a change of low rank beside a file that stays (`follower`).
//! Not here: which layers, neurons and words a student starts with, and the file that pages get (`text_pack`).

mod distiller;
mod follower;
mod lessons;
mod losses;
mod rounding;
mod views;

#[cfg(test)]
mod tests;

use burn::tensor::Device;
use shared_model::text::{BertTextEncoder, TextError};

pub use distiller::{Distiller, StepReport};
pub use follower::follow;
pub use lessons::Lessons;
pub use losses::LossWeights;
pub use rounding::Rounding;

use crate::text_pack::PackSource;

/// How to distil.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistillOptions {
    /// Updates of the student.
    pub num_steps: usize,
    /// Texts that are learned from, evenly spread over those given.
    pub num_texts_max: usize,
    /// Views of each text beside the text itself.
    pub num_views: usize,
    /// Of views and batches.
    pub seed: u64,
    /// How much each loss counts.
    pub weights: LossWeights,
    /// Of the similarities within a batch: the smaller, the more the nearest texts count.
    pub temperature: f32,
    /// Highest rate; it rises over the first twentieth of the steps and falls by a cosine.
    pub learning_rate: f64,
    /// Tokens per batch; its texts are of exactly one length.
    pub num_tokens: usize,
    /// Decoupled, on matrices only; words do not decay.
    pub weight_decay: f32,
    /// Bound of the norm of the whole gradient.
    pub gradient_norm_max: f32,
    /// Rounds weights while they learn, towards the end.
    pub rounding: Option<Rounding>,
}

impl Default for DistillOptions {
    /// As measured in `docs/distillation.md`.
    fn default() -> Self {
        Self {
            num_steps: 1_500,
            num_texts_max: 20_000,
            num_views: 3,
            seed: 1,
            weights: LossWeights {
                cosine: 1.0,
                score: 0.1,
                hidden: 1.0,
            },
            temperature: 0.1,
            learning_rate: 5e-4,
            num_tokens: 512,
            weight_decay: 0.01,
            gradient_norm_max: 1.0,
            rounding: None,
        }
    }
}

/// How far a distillation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// The teacher embeds texts, views included.
    Embedded {
        /// So far.
        num_texts: usize,
        /// Of how many.
        of: usize,
    },
    /// The student has learned a batch.
    Step(StepReport),
}

/// Why nothing was distilled, or not to the end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DistillError {
    /// An encoder is not sound, a text was refused, or the device failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A setting is outside what is supported.
    #[error("{field} is {actual}, expected {expected}")]
    Option {
        /// Its name.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What is supported.
        expected: &'static str,
    },
    /// The student embeds into another space than the teacher.
    #[error("the student's hidden_size is {student}, the teacher's {teacher}")]
    OtherWidth {
        /// Width of the student.
        student: usize,
        /// Width of the teacher.
        teacher: usize,
    },
    /// Nothing to learn from.
    #[error("there is no text to distil from")]
    NoTexts,
    /// The loss is NaN or infinite; the student is as before the step.
    #[error("loss is {loss} at step {step}, the step was not taken")]
    LossNotFinite {
        /// Its value.
        loss: f32,
        /// Number of the step.
        step: usize,
    },
    /// The gradient is NaN or infinite; the student is as before the step.
    #[error("gradient norm is {norm} at step {step}, the step was not taken")]
    GradientNotFinite {
        /// Its value.
        norm: f32,
        /// Number of the step.
        step: usize,
    },
}

impl DistillOptions {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the field, its value and what is supported.
    pub fn check(&self) -> Result<(), DistillError> {
        let from_zero = "from 0 to 1000";
        let mut fields = vec![
            ("weights.cosine", self.weights.cosine, 0.0..=1e3, from_zero),
            ("weights.score", self.weights.score, 0.0..=1e3, from_zero),
            ("weights.hidden", self.weights.hidden, 0.0..=1e3, from_zero),
            (
                "temperature",
                self.temperature,
                1e-3..=10.0,
                "from 0.001 to 10",
            ),
            (
                "learning_rate",
                self.learning_rate as f32,
                0.0..=1.0,
                "from 0 to 1",
            ), // checked, not used
            ("weight_decay", self.weight_decay, 0.0..=1.0, "from 0 to 1"),
            (
                "gradient_norm_max",
                self.gradient_norm_max,
                1e-6..=1e6,
                "from 0.000001 to 1000000",
            ),
        ];
        if let Some(rounding) = self.rounding {
            fields.push((
                "rounding.step_share",
                rounding.step_share,
                1e-3..=2.0,
                "from 0.001 to 2",
            ));
            fields.push((
                "rounding.last_share",
                rounding.last_share,
                0.0..=1.0,
                "from 0 to 1",
            ));
        }
        for (field, value, range, expected) in fields {
            if !range.contains(&value) {
                let actual = value.to_string();
                return Err(DistillError::Option {
                    field,
                    actual,
                    expected,
                });
            }
        }
        let counts = [
            (
                "num_texts_max",
                self.num_texts_max,
                1..=1_000_000,
                "1 to 1000000",
            ),
            ("num_views", self.num_views, 0..=64, "0 to 64"),
            ("num_tokens", self.num_tokens, 1..=65_536, "1 to 65536"),
        ];
        for (field, value, range, expected) in counts {
            if !range.contains(&value) {
                let actual = value.to_string();
                return Err(DistillError::Option {
                    field,
                    actual,
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// Teaches `student` what `teacher` says of `texts`, and gives its parts as they are then. `on_progress` ends it by
/// `false`: what was learned until then is kept.
///
/// # Errors
/// A setting is out of bounds, an encoder is not sound, the widths differ, there is no text, or loss or gradient is not
/// finite.
pub fn distill(
    teacher: &BertTextEncoder,
    student: PackSource,
    texts: &[String],
    options: &DistillOptions,
    device: &Device,
    mut on_progress: impl FnMut(Progress) -> bool,
) -> Result<PackSource, DistillError> {
    let mut distiller = Distiller::new(student, options, device)?;
    distiller.check_width(teacher.dim())?;
    let lessons = Lessons::make(teacher, texts, options, |num_texts, of| {
        on_progress(Progress::Embedded { num_texts, of })
    })?;
    distiller.learn(&lessons, |report| on_progress(Progress::Step(report)))?;
    distiller.parts()
}
