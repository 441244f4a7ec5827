//! TextEncoder: item texts as unit vectors, so that an item nobody has touched yet can be ranked.
//!
//! Two encoders stand behind [`AnyTextEncoder`]: a BERT-family network with pretrained weights
//! (`config`, `tokenizer`, `batch` → `bert` ← `parameters`; `encoder` puts them together) and
//! `small`, which hashes words and needs no weights. Both run on the server and in the page.
//! `host` is the same network in int8 for the page's CPU, `packed` the file that brings it there.
//! `low_rank` is what the server teaches the pretrained one.
//! `cross_encoder` reads two texts together (`pairs`) and says how well they go together; it runs on the server.
//! Not here: reading or downloading files and caching rows (the server's `text_source`), and the
//! projection of these vectors into the item space (`model`).

pub mod config;

pub mod batch;
pub mod tokenizer;

pub mod bert;
pub mod parameters;

pub mod encoder;
pub mod host;
pub mod low_rank;
pub mod packed;
pub mod small;

pub mod cross_encoder;
pub mod pairs;

#[cfg(all(test, feature = "flex"))]
mod tests;

pub use batch::{BatchLimits, TokenizedText};
pub use config::BertConfig;
pub use cross_encoder::{CrossEncoder, CrossEncoderConfig};
pub use encoder::{BertTextEncoder, TextEncoder};
pub use host::HostTextEncoder;
pub use low_rank::LowRankChange;
pub use packed::{PackedEncoder, PackedReader};
pub use pairs::PairTokenizer;
pub use parameters::NamedTensor;
pub use small::SmallTextEncoder;
pub use tokenizer::TextTokenizer;

use crate::ids::BlobId;

/// Longest text that is read, in bytes; what follows is ignored, as it would be after tokenizing.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Why an encoder could not be built or a text not be embedded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TextError {
    /// The encoder's `config.json` does not parse.
    #[error("encoder config is not readable: {reason}")]
    Config {
        /// What the parser said.
        reason: String,
    },
    /// A field of the encoder's `config.json` is outside what is supported.
    #[error("encoder config field {field} is {actual}, expected {expected}")]
    ConfigField {
        /// Its name.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What is supported.
        expected: &'static str,
    },
    /// `tokenizer.json` does not parse or cannot be set up.
    #[error("tokenizer is not readable: {reason}")]
    Tokenizer {
        /// What the parser said.
        reason: String,
    },
    /// The tokenizer can give ids that the encoder has no embedding for.
    #[error("tokenizer knows {actual} tokens, but the encoder only {vocab_size}")]
    VocabularyMismatch {
        /// Tokens of the tokenizer.
        actual: usize,
        /// Word embeddings of the encoder.
        vocab_size: usize,
    },
    /// A weight that the config asks for is not there.
    #[error("tensor {tensor} is missing")]
    TensorMissing {
        /// Its name in the weights file.
        tensor: String,
    },
    /// A weight that the config does not ask for.
    #[error("tensor {tensor} does not belong to the configured encoder")]
    TensorUnexpected {
        /// Its name in the weights file.
        tensor: String,
    },
    /// A weight came twice.
    #[error("tensor {tensor} is there twice")]
    TensorTwice {
        /// Its name in the weights file.
        tensor: String,
    },
    /// A weight has another shape than the config says.
    #[error("tensor {tensor} has shape {actual:?}, expected {expected:?}")]
    ShapeMismatch {
        /// Its name in the weights file.
        tensor: String,
        /// Shape by the config, as laid out in the weights file.
        expected: Vec<usize>,
        /// Its shape.
        actual: Vec<usize>,
    },
    /// A weight has another number of values than its shape says.
    #[error("tensor {tensor} holds {actual} values, its shape {shape:?} asks for another number")]
    LengthMismatch {
        /// Its name in the weights file.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its number of values.
        actual: usize,
    },
    /// A weight holds NaN or an infinity.
    #[error("tensor {tensor} holds a value that is not finite")]
    TensorNotFinite {
        /// Its name in the weights file.
        tensor: String,
    },
    /// A file that a page downloads is damaged.
    #[error("packed text encoder is not readable: {reason}")]
    Packed {
        /// What is wrong with it.
        reason: String,
    },
    /// A network that is too large for a page.
    #[error(
        "text encoder has {num_codes} weights, a page takes at most {}",
        packed::NUM_CODES_MAX
    )]
    TooManyCodes {
        /// Codes of all its matrices.
        num_codes: u64,
    },
    /// The tokenizer failed on a text.
    #[error("text cannot be tokenized: {reason}")]
    Tokenize {
        /// What it said.
        reason: String,
    },
    /// A token sequence is empty or longer than the encoder has positions for.
    #[error("token sequence has {actual} tokens, expected 1 to {len_max}")]
    SequenceLen {
        /// Its length.
        actual: usize,
        /// Positions of the encoder.
        len_max: usize,
    },
    /// A token without an embedding.
    #[error("token {token_id} is not one of the {vocab_size} tokens of the encoder")]
    TokenUnknown {
        /// The token.
        token_id: u32,
        /// Word embeddings of the encoder.
        vocab_size: usize,
    },
    /// The device failed to give the result back.
    #[error("device failed to encode: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// A change was asked of an encoder that has no weights.
    #[error("the small text encoder has no weights to change")]
    NothingToChange,
    /// An embedding came out as NaN or infinite.
    #[error("embedding of text {text_idx} is not finite")]
    EmbeddingNotFinite {
        /// Which of the texts.
        text_idx: usize,
    },
}

/// The encoder in use, whichever it is.
#[derive(Debug)]
pub enum AnyTextEncoder {
    /// Pretrained network.
    Bert(Box<BertTextEncoder>),
    /// Hashed words.
    Small(SmallTextEncoder),
}

impl AnyTextEncoder {
    /// The pretrained network, where it is one.
    #[must_use]
    pub fn as_bert(&self) -> Option<&BertTextEncoder> {
        match self {
            Self::Bert(encoder) => Some(encoder),
            Self::Small(_) => None,
        }
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::Bert(encoder) => encoder.dim(),
            Self::Small(encoder) => encoder.dim(),
        }
    }

    /// Names everything that an embedding depends on: another fingerprint means that texts must be
    /// embedded anew, so it identifies the encoder generation.
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        match self {
            Self::Bert(encoder) => encoder.fingerprint(),
            Self::Small(encoder) => encoder.fingerprint(),
        }
    }

    /// Embeds texts; rows are unit vectors, or zero where the small encoder finds no word.
    /// In a page on WebGPU use [`Self::embed_async`]: reading back must not block there.
    ///
    /// # Shapes
    /// → `[texts.len(), dim]`, row-major.
    ///
    /// # Errors
    /// The tokenizer or the device failed, or an embedding is not finite.
    pub fn embed(&self, texts: &[String]) -> Result<Vec<f32>, TextError> {
        match self {
            Self::Bert(encoder) => encoder.embed(texts),
            Self::Small(encoder) => Ok(encoder.embed(texts)),
        }
    }

    /// [`Self::embed`] for devices that can only be read back asynchronously.
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub async fn embed_async(&self, texts: &[String]) -> Result<Vec<f32>, TextError> {
        match self {
            Self::Bert(encoder) => encoder.embed_async(texts).await,
            Self::Small(encoder) => Ok(encoder.embed(texts)),
        }
    }
}

fn device_error(error: impl std::fmt::Debug) -> TextError {
    TextError::Device {
        reason: format!("{error:?}"),
    }
}

/// The first [`TEXT_BYTES_MAX`] bytes of a text, cut between characters.
fn readable_part(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
