//! Studies: many settings of the learner on one dataset, offline, each measured as `evaluate` measures.
//!
//! ```text
//! settings ─► trial (warm fit, shared where it can be ─► stream: rank, then learn) ─┬─► ablation: differences with intervals
//!                                                                                   ├─► sweep: quality against bytes
//!                                                                                   ├─► widths: quality against the bits of codes, and drift
//!                                                                                   └─► tune: the next settings to try
//! ```
//! Everything lies in one folder, so that a study goes on where it was stopped.
//! Not here: HTTP, pages and kills (`replay`), and what a figure means (`evaluate`).

pub mod ablation;
pub mod settings;
pub mod stream;
pub mod sweep;
pub mod trial;
pub mod tune;
pub mod widths;

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::cross_encoder::CrossEncoderError;
use crate::replay::ReplayError;

/// Why a study stopped.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The dataset, the learner or a report failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Weights of an earlier warm fit cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A setting is wrong.
    #[error("variant {variant:?}: {source}")]
    Config {
        /// Where it stands.
        variant: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// A CrossEncoder that a setting names cannot be loaded.
    #[error("variant {variant:?}: release.teacher_dir cannot be used: {source}")]
    Teacher {
        /// Where it stands.
        variant: String,
        /// What is wrong.
        source: CrossEncoderError,
    },
    /// Two versions that have no delta.
    #[error("no delta between two versions: {0}")]
    Delta(String),
    /// A file of the study or of the user.
    #[error("{reason}: {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl StudyError {
    /// For files that cannot be read, written or understood.
    pub(crate) fn file(path: &std::path::Path, reason: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
