//! The compression ladder: text encoders made smaller in several ways, what each is worth, and which one fits.
//!
//! ```text
//! recipe ─► prune ─► distill ─► text_pack ─► figures ─► robustness ─► choice
//!           (workshop: encoder of the server, texts)    (scene: a dataset's stream)
//! ```
//! The encoder that is made smaller is the parent; all comparisons are with it in f32.
//! Not here: how parts are pruned, taught and rounded (`prune`, `distill`, `text_pack`), and milliseconds in a browser
//! (`cargo xtask bench compress`).

mod choice;
mod figures;
mod noise;
mod recipe;
mod report;
mod robustness;
mod scene;
mod workshop;

#[cfg(test)]
mod tests;

pub use choice::{Target, choose, frontier};
pub use figures::Rung;
pub use noise::Noise;
pub use recipe::{RECIPE_BYTES_MAX, Recipe, candidates};
pub use report::{chart, document, table};
pub use robustness::{Check, Limits, Robustness};
pub use scene::{Answers, Scene};
pub use workshop::{Made, Stage, Workshop};

use shared_model::text::TextError;

use crate::distill::DistillError;
use crate::prune::PruneError;
use crate::text_pack::PackError;

/// Why a rung could not be made or measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LadderError {
    /// A recipe asks for what cannot be.
    #[error("recipe field {field} is {actual}, expected {expected}")]
    Recipe {
        /// Name in the recipe's JSON.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What is supported.
        expected: String,
    },
    /// A recipe is no JSON of a recipe.
    #[error("the recipe cannot be read: {reason}")]
    Unreadable {
        /// What was found, and where.
        reason: String,
    },
    /// The encoder is not sound, or a text was refused.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Nothing was pruned.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// Nothing was distilled.
    #[error(transparent)]
    Distill(#[from] DistillError),
    /// The file cannot be so small.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The dataset has too little in it.
    #[error("nothing can be compared: {reason}")]
    NothingToCompare {
        /// What is missing.
        reason: String,
    },
    /// Somebody said that it should end.
    #[error("it was ended before it was done")]
    Ended,
}
