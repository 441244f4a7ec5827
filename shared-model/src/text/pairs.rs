//! Two texts as one token sequence: `[CLS] user text [SEP] item text [SEP]`.
//!
//! ```text
//! tokens   [CLS] u_1 … u_n [SEP] i_1 … i_m [SEP]
//! type       0    0     0    0    1     1    1
//! ```
//! The longer of the two texts is cut first, from its end, so callers put what matters most in front.
//! Two tokenizers: that of a pretrained encoder, and one that hashes words and needs no vocabulary, so that
//! titles of next year have tokens too. Not here: which texts they are (the server's `cross_encoder`).

use serde::{Deserialize, Serialize};

use super::batch::{BatchLimits, TokenBatch, TokenizedText, plan_batches};
use super::tokenizer::TextTokenizer;
use super::{TextError, readable_part};

/// Fewest tokens of a pair: the three special ones, and one of each text.
pub const PAIR_LEN_MIN: usize = 5;
/// Special tokens of the hashing tokenizer; 0 is padding.
const CLS: u32 = 1;
const SEP: u32 = 2;
const NUM_SPECIAL: u32 = 3;

/// A pair as token ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedPair {
    /// The whole sequence.
    pub token_ids: Vec<u32>,
    /// Tokens of the first text with its special ones; the rest is of type 1.
    pub num_first: usize,
}

/// Words to ids by hashing, with no vocabulary to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedWords {
    /// Ids that can come out, special ones included.
    pub num_buckets: u32,
}

/// How the hashing tokenizer lies in a file.
#[derive(Serialize, Deserialize)]
struct HashedFile {
    freshet_hashed_words: HashedWords,
}

/// Turns pairs of texts into token sequences.
#[derive(Debug)]
pub struct PairTokenizer {
    kind: Kind,
    len_max: usize,
}

#[derive(Debug)]
enum Kind {
    /// As the pretrained encoder was trained; the file is kept so that it can be saved again.
    Pretrained {
        tokenizer: Box<TextTokenizer>,
        json: Vec<u8>,
    },
    Hashed(HashedWords),
}

impl PairTokenizer {
    /// Reads a `tokenizer.json` of either kind; pairs are cut to `len_max` tokens.
    ///
    /// # Errors
    /// The bytes are neither, a size is out of bounds, or `len_max` leaves no room for text.
    pub fn from_json(json: &[u8], len_max: usize) -> Result<Self, TextError> {
        if let Ok(file) = serde_json::from_slice::<HashedFile>(json) {
            return Self::hashed(file.freshet_hashed_words, len_max); // any other file is for the parser below
        }
        check_len_max(len_max)?;
        let tokenizer = Box::new(TextTokenizer::from_bytes(json, len_max)?);
        let json = json.to_vec();
        Ok(Self {
            kind: Kind::Pretrained { tokenizer, json },
            len_max,
        })
    }

    /// Hashes words.
    ///
    /// # Errors
    /// Too few or too many buckets, or `len_max` leaves no room for text.
    pub fn hashed(words: HashedWords, len_max: usize) -> Result<Self, TextError> {
        check_len_max(len_max)?;
        if !(16..=1 << 20).contains(&words.num_buckets) {
            return Err(TextError::ConfigField {
                field: "num_buckets",
                actual: words.num_buckets.to_string(),
                expected: "16 to 1048576",
            });
        }
        let kind = Kind::Hashed(words);
        Ok(Self { kind, len_max })
    }

    /// The file that [`Self::from_json`] reads back.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Pretrained { json, .. } => json.clone(),
            Kind::Hashed(words) => {
                let file = HashedFile {
                    freshet_hashed_words: *words,
                };
                serde_json::to_vec(&file).expect("a struct of one number always serializes")
            }
        }
    }

    /// Number of tokens that can come out.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Pretrained { tokenizer, .. } => tokenizer.vocab_size(),
            Kind::Hashed(words) => words.num_buckets as usize, // fits: at most 2^20
        }
    }

    /// Most tokens per pair.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.len_max
    }

    /// Tokens of a pair; empty texts leave the special tokens alone.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokenize(&self, first: &str, second: &str) -> Result<TokenizedPair, TextError> {
        let (first, second) = (readable_part(first), readable_part(second));
        match &self.kind {
            Kind::Pretrained { tokenizer, .. } => tokenizer.tokenize_pair(first, second),
            Kind::Hashed(words) => Ok(words.tokenize(first, second, self.len_max)),
        }
    }
}

fn check_len_max(len_max: usize) -> Result<(), TextError> {
    if (PAIR_LEN_MIN..=8192).contains(&len_max) {
        return Ok(());
    }
    Err(TextError::ConfigField {
        field: "tokens_max",
        actual: len_max.to_string(),
        expected: "5 to 8192",
    })
}

impl HashedWords {
    fn tokenize(self, first: &str, second: &str, len_max: usize) -> TokenizedPair {
        let (mut first, mut second) = (self.words(first, len_max), self.words(second, len_max));
        let room = len_max - NUM_SPECIAL as usize; // len_max is at least PAIR_LEN_MIN
        while first.len() + second.len() > room {
            if first.len() > second.len() {
                first.pop();
            } else {
                second.pop();
            }
        }
        let num_first = first.len() + 2;
        let mut token_ids = vec![CLS];
        token_ids.append(&mut first);
        token_ids.push(SEP);
        token_ids.append(&mut second);
        token_ids.push(SEP);
        TokenizedPair {
            token_ids,
            num_first,
        }
    }

    /// Ids of the first `num_max` words.
    fn words(self, text: &str, num_max: usize) -> Vec<u32> {
        let lower_case = text.to_lowercase();
        let words = lower_case.split(|character: char| !character.is_alphanumeric());
        let words = words.filter(|word| !word.is_empty()).take(num_max);
        words.map(|word| self.bucket(word)).collect()
    }

    fn bucket(self, word: &str) -> u32 {
        let hash = blake3::hash(word.as_bytes());
        let bytes = hash.as_bytes();
        let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        NUM_SPECIAL + number % (self.num_buckets - NUM_SPECIAL)
    }
}

/// Pairs of one padded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairBatch {
    /// Token ids and padding, by row; `text_idxs` are indices of pairs.
    pub tokens: TokenBatch,
    /// `[num_pairs, padded_len]`, row-major: 1 at the second text, else 0.
    pub token_types: Vec<i32>,
}

impl PairBatch {
    /// The pairs of `pair_idxs`, padded to the longest of them.
    #[must_use]
    pub fn of(pairs: &[TokenizedPair], pair_idxs: &[usize]) -> Self {
        let texts: Vec<TokenizedText> = pairs.iter().map(sequence).collect();
        let lens = pair_idxs.iter().map(|&idx| texts[idx].token_ids.len());
        let padded_len = lens.max().unwrap_or(1);
        Self::with_types(pairs, TokenBatch::new(&texts, pair_idxs, padded_len))
    }

    fn with_types(pairs: &[TokenizedPair], tokens: TokenBatch) -> Self {
        let mut token_types = Vec::with_capacity(tokens.token_ids.len());
        for (&pair_idx, &len) in tokens.text_idxs.iter().zip(&tokens.lens) {
            let num_first = pairs[pair_idx].num_first.min(len);
            token_types.extend(std::iter::repeat_n(0, num_first));
            token_types.extend(std::iter::repeat_n(1, len - num_first));
            token_types.extend(std::iter::repeat_n(0, tokens.padded_len - len));
        }
        Self {
            tokens,
            token_types,
        }
    }
}

/// Cuts pairs into batches of about one length, for scoring.
#[must_use]
pub fn plan_pair_batches(
    pairs: &[TokenizedPair],
    limits: BatchLimits,
    len_max: usize,
) -> Vec<PairBatch> {
    let texts: Vec<TokenizedText> = pairs.iter().map(sequence).collect();
    plan_batches(&texts, limits, len_max)
        .into_iter()
        .map(|tokens| PairBatch::with_types(pairs, tokens))
        .collect()
}

fn sequence(pair: &TokenizedPair) -> TokenizedText {
    TokenizedText {
        token_ids: pair.token_ids.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(len_max: usize) -> PairTokenizer {
        let words = HashedWords { num_buckets: 512 };
        PairTokenizer::hashed(words, len_max).expect("in bounds")
    }

    #[test]
    fn a_pair_has_its_special_tokens_and_types() {
        let pair = hashed(32).tokenize("Red MUG", "red, jug").expect("hashes");
        let ids = &pair.token_ids;
        assert_eq!((ids.len(), pair.num_first), (7, 4));
        assert_eq!((ids[0], ids[3], ids[6]), (CLS, SEP, SEP));
        assert_eq!(ids[1], ids[4], "case and punctuation do not matter");
        assert_ne!(ids[2], ids[5]);
        let batch = PairBatch::of(&[pair], &[0]);
        assert_eq!(batch.token_types, vec![0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn empty_texts_leave_the_special_tokens_and_long_ones_are_cut_from_the_longer() {
        let empty = hashed(8).tokenize("", " — ").expect("hashes");
        assert_eq!(empty.token_ids, vec![CLS, SEP, SEP]);
        let cut = hashed(8).tokenize(&"a ".repeat(9000), "b c");
        let cut = cut.expect("hashes");
        assert_eq!((cut.token_ids.len(), cut.num_first), (8, 5));
    }

    #[test]
    fn a_saved_hashing_tokenizer_reads_back_and_absurd_sizes_are_refused() {
        let tokenizer = hashed(16);
        let back = PairTokenizer::from_json(&tokenizer.to_json(), 16).expect("reads");
        assert_eq!(
            back.tokenize("red mug", "jug"),
            tokenizer.tokenize("red mug", "jug")
        );
        let absurd = br#"{"freshet_hashed_words": {"num_buckets": 4000000000}}"#;
        assert!(matches!(
            PairTokenizer::from_json(absurd, 16),
            Err(TextError::ConfigField {
                field: "num_buckets",
                ..
            })
        ));
        assert!(matches!(
            PairTokenizer::from_json(&tokenizer.to_json(), 4),
            Err(TextError::ConfigField {
                field: "tokens_max",
                ..
            })
        ));
        assert!(PairTokenizer::from_json(b"{}", 16).is_err());
    }

    #[test]
    fn batches_pad_types_with_tokens() {
        let tokenizer = hashed(32);
        let pairs =
            [("a", "b c"), ("a b", "c d e")].map(|(left, right)| tokenizer.tokenize(left, right));
        let pairs = pairs.map(|pair| pair.expect("hashes"));
        let batch = PairBatch::of(&pairs, &[0, 1]);
        assert_eq!(batch.tokens.padded_len, 8);
        assert_eq!(batch.token_types.len(), 16);
        assert_eq!(batch.token_types[..8], [0, 0, 0, 1, 1, 1, 0, 0]);
        let exact = plan_pair_batches(&pairs, BatchLimits::EXACT, 32);
        assert!(exact.iter().all(|batch| !batch.tokens.is_padded()));
        assert_eq!(exact.len(), 2);
    }
}
