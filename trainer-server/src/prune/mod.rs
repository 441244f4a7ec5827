//! Parts of a text encoder left out: layers, feed-forward neurons, attention heads, tokens.
//!
//! ```text
//! layers      those whose absence changes embeddings least, one after another             (layers)
//! neurons     ┐ inputs of an output matrix that the others can stand in for; the matrix
//! heads       ┘ is fitted anew to what the whole network gives               (inputs ← surgeon)
//! vocabulary  tokens that texts use, characters to spell all others, and common ones  (vocabulary)
//! ```
//! Every function takes the parts of a sound encoder and gives those of a smaller one; texts say what it is to be good
//! at. What pruning costs before anything is trained again: `docs/pruning.md`.
//! Not here: training after it, rounding (`text_pack`), and the network (`shared_model::text`).

mod layers;

mod inputs;
mod surgeon;

mod vocabulary;

mod weights;

pub use inputs::{heads, neurons};
pub use layers::{layers, layers_that_matter};
pub use vocabulary::vocabulary;

use shared_model::text::{TextError, TextTokenizer, TokenizedText};

use crate::text_pack::PackSource;

/// Texts that are looked at: two thousand tokens, more than there are weights to fit per output.
const NUM_TEXTS: usize = 256;

/// Why nothing was pruned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PruneError {
    /// The encoder is not sound.
    #[error(transparent)]
    Text(#[from] TextError),
    /// More is to be kept than there is, or nothing.
    #[error("{actual} {field} cannot be kept of {most}")]
    Kept {
        /// What of the network.
        field: &'static str,
        /// How many were to be kept.
        actual: usize,
        /// How many there are.
        most: usize,
    },
    /// A layer that is not there, or not in order.
    #[error("layers {keep:?} are no ascending choice of {num_layers} layers")]
    Layers {
        /// What was to be kept.
        keep: Vec<usize>,
        /// How many there are.
        num_layers: usize,
    },
    /// Nothing can be measured.
    #[error("there are no texts to measure on")]
    NoTexts,
    /// `tokenizer.json` is not of a kind that can be cut, or not sound.
    #[error("tokenizer.json field {field} {reason}")]
    Tokenizer {
        /// Its path, with dots.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn check_kept(field: &'static str, actual: usize, most: usize) -> Result<(), PruneError> {
    if (1..=most).contains(&actual) {
        return Ok(());
    }
    Err(PruneError::Kept {
        field,
        actual,
        most,
    })
}

/// [`NUM_TEXTS`] of the texts at most, evenly spread, as tokens.
fn tokens_of(parts: &PackSource, texts: &[String]) -> Result<Vec<TokenizedText>, PruneError> {
    if texts.is_empty() {
        return Err(PruneError::NoTexts);
    }
    let tokenizer = TextTokenizer::from_bytes(&parts.tokenizer_json, parts.len_max)?;
    let stride = texts.len().div_ceil(NUM_TEXTS);
    let texts = texts.iter().step_by(stride);
    let tokens = texts.map(|text| tokenizer.tokenize(text));
    Ok(tokens.collect::<Result<_, _>>()?)
}

#[cfg(test)]
pub(crate) mod tests;
