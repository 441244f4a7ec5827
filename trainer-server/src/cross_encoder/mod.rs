//! CrossEncoder: from user and item texts to clicks and ratings, tuned incrementally (Devlin et al. 2018's
//! recipe: AdamW, linear warm-up, decoupled weight decay, dropout, bounded gradient norm).
//!
//! ```text
//! dataset ─► scene (moments: texts, negatives, baselines) ─► pairs ─► tuner ─► scorer
//!                                                                       │        ├─► rerank, teacher
//!                                              walk (before | after) ◄──┘        └─► files
//! ```
//! Works on texts alone, without the Ranker. Not here: the network and its tokenizer
//! (`shared_model::text`), and the loss of the Ranker that soft scores may enter (`train`).

mod negatives;
mod platt;
mod rating_means;

pub mod scene;
pub mod walk;

pub mod compare;
pub mod experiment;
pub mod figures;
mod ranker_base;

pub mod rerank;
pub mod scorer;
pub mod teacher;
pub mod texts;
pub mod tuner;

mod schedule;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use shared_model::text::TextError;

pub use schedule::Schedule;
pub use scorer::CrossScorer;
pub use tuner::{LabelledPair, TuneOptions, Tuner};

/// Why a CrossEncoder could not be built, tuned, saved or measured.
#[derive(Debug, thiserror::Error)]
pub enum CrossEncoderError {
    /// A text, a weight or a config was refused.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A saved CrossEncoder lacks a file, or one is damaged.
    #[error(transparent)]
    Files(#[from] crate::text_source::TextSourceError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tokenizer knows more tokens than the network.
    #[error("tokenizer knows {actual} tokens, but the network only {vocab_size}")]
    VocabularyMismatch {
        /// Tokens of the tokenizer.
        actual: usize,
        /// Word embeddings of the network.
        vocab_size: usize,
    },
    /// The loss is NaN or infinite; the weights are as before the step.
    #[error("loss is {loss} at step {step}, the step was not taken")]
    LossNotFinite {
        /// Its value.
        loss: f32,
        /// Number of the step.
        step: usize,
    },
    /// The gradient is NaN or infinite; the weights are as before the step.
    #[error("gradient norm is {norm} at step {step}, the step was not taken")]
    GradientNotFinite {
        /// Its value.
        norm: f32,
        /// Number of the step.
        step: usize,
    },
    /// The lists of the Ranker could not be had.
    #[error(transparent)]
    Ranker(#[from] crate::replay::ReplayError),
    /// No event of a user with a past on an item new to them, before the split or after.
    #[error(
        "there is nothing to learn: {num_warm} moments for the warm fit, {num_stream} of the stream"
    )]
    NothingToLearn {
        /// Moments before the split.
        num_warm: usize,
        /// Moments after it.
        num_stream: usize,
    },
    /// A batch without a label in it teaches nothing.
    #[error("none of the {num_pairs} pairs of a batch has a label")]
    NoLabels {
        /// Pairs in the batch.
        num_pairs: usize,
    },
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
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> CrossEncoderError + '_ {
    move |source| CrossEncoderError::Write {
        path: path.to_owned(),
        source,
    }
}
