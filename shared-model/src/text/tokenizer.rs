//! Text to token ids by a Hugging Face `tokenizer.json`.
//!
//! The same engine runs on the server and in the page; padding is left to `batch`.

use std::fmt;

use tokenizers::{Tokenizer, TruncationParams};

use super::batch::TokenizedText;
use super::pairs::TokenizedPair;
use super::{TextError, readable_part};
use crate::ids::BlobId;

/// Fewest tokens a sequence may be cut to: the special tokens and one of the text.
pub const SEQUENCE_LEN_MIN: usize = 3;

/// A tokenizer that cuts every text to the same number of tokens at most.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    len_max: usize,
    fingerprint: BlobId,
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("TextTokenizer");
        fields
            .field("len_max", &self.len_max)
            .field("fingerprint", &self.fingerprint);
        fields.finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Reads `tokenizer.json`; its own truncation and padding give way to `len_max`, the most
    /// tokens per text with special tokens counted.
    ///
    /// # Errors
    /// The bytes do not parse, or `len_max` is below [`SEQUENCE_LEN_MIN`].
    pub fn from_bytes(bytes: &[u8], len_max: usize) -> Result<Self, TextError> {
        let unreadable = |reason: String| TextError::Tokenizer { reason };
        if len_max < SEQUENCE_LEN_MIN {
            return Err(unreadable(format!(
                "sequences of {len_max} tokens leave no room for text"
            )));
        }
        let mut tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|error| unreadable(error.to_string()))?;
        let truncation = TruncationParams {
            max_length: len_max,
            ..TruncationParams::default()
        };
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| unreadable(error.to_string()))?;

        let mut hasher = blake3::Hasher::new();
        hasher.update(&(len_max as u64).to_le_bytes()); // fits: usize is at most 64 bits
        hasher.update(bytes);
        let fingerprint = BlobId(*hasher.finalize().as_bytes());
        Ok(Self {
            tokenizer,
            len_max,
            fingerprint,
        })
    }

    /// Number of tokens that can come out.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Most tokens per text.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.len_max
    }

    /// Hash of the tokenizer file and the length limit.
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        self.fingerprint
    }

    /// Tokens of two texts in one sequence, the longer cut first; special tokens as the file says.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokenize_pair(&self, first: &str, second: &str) -> Result<TokenizedPair, TextError> {
        let texts = (readable_part(first), readable_part(second));
        let encoding = self.tokenizer.encode_fast(texts, true);
        let encoding = encoding.map_err(|error| TextError::Tokenize {
            reason: error.to_string(),
        })?;
        let types = encoding.get_type_ids();
        Ok(TokenizedPair {
            token_ids: encoding.get_ids().to_vec(),
            num_first: types.iter().take_while(|id| **id == 0).count(),
        })
    }

    /// Tokens of one text; an empty text gives the special tokens alone.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokenize(&self, text: &str) -> Result<TokenizedText, TextError> {
        let encoding = self.tokenizer.encode_fast(readable_part(text), true);
        let encoding = encoding.map_err(|error| TextError::Tokenize {
            reason: error.to_string(),
        })?;
        Ok(TokenizedText {
            token_ids: encoding.get_ids().to_vec(),
        })
    }
}
