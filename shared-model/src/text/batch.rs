//! Token sequences put into batches of about equal length, so that little is spent on padding.
//!
//! Not here: how text becomes tokens (`tokenizer`).

/// One text as token ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedText {
    /// At least one id; the whole sequence is attended to.
    pub token_ids: Vec<u32>,
}

/// How batches are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most tokens per batch, padding included; one sequence may exceed it alone.
    pub num_tokens_max: usize,
    /// Sequences are padded to a multiple of this.
    pub len_multiple: usize,
}

impl BatchLimits {
    /// For the CPU: no padding at all, and hidden states that stay in the cache.
    pub const EXACT: Self = Self {
        num_tokens_max: 1024,
        len_multiple: 1,
    };

    /// For GPUs: few distinct shapes, since each shape costs buffers of its own.
    pub const BUCKETS: Self = Self {
        num_tokens_max: 4096,
        len_multiple: 16,
    };
}

/// Sequences of one padded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// Which texts, in the order of the rows.
    pub text_idxs: Vec<usize>,
    /// Tokens per sequence after padding.
    pub padded_len: usize,
    /// `[text_idxs.len(), padded_len]`, row-major; padding is 0.
    pub token_ids: Vec<i32>,
    /// Tokens per sequence before padding.
    pub lens: Vec<usize>,
}

impl TokenBatch {
    /// Whether any sequence is shorter than the batch, so that a mask is needed.
    #[must_use]
    pub fn is_padded(&self) -> bool {
        self.lens.iter().any(|&len| len < self.padded_len)
    }

    /// 1 at a token, 0 at padding.
    ///
    /// # Shapes
    /// → `[text_idxs.len(), padded_len]`, row-major.
    #[must_use]
    pub fn mask(&self) -> Vec<f32> {
        let mut mask = Vec::with_capacity(self.token_ids.len());
        for &len in &self.lens {
            mask.extend(std::iter::repeat_n(1.0, len));
            mask.extend(std::iter::repeat_n(0.0, self.padded_len - len));
        }
        mask
    }

    /// The texts of `text_idxs`, none longer than `padded_len`.
    pub(super) fn new(texts: &[TokenizedText], text_idxs: &[usize], padded_len: usize) -> Self {
        let mut token_ids = Vec::with_capacity(text_idxs.len() * padded_len);
        let mut lens = Vec::with_capacity(text_idxs.len());
        for (row, &text_idx) in text_idxs.iter().enumerate() {
            let text = &texts[text_idx];
            token_ids.extend(text.token_ids.iter().map(|&id| id as i32)); // fits: vocabularies are bounded
            token_ids.resize((row + 1) * padded_len, 0);
            lens.push(text.token_ids.len());
        }
        Self {
            text_idxs: text_idxs.to_vec(),
            padded_len,
            token_ids,
            lens,
        }
    }
}

/// Cuts texts into batches, shortest first. No sequence may be longer than `len_max`.
#[must_use]
pub fn plan_batches(
    texts: &[TokenizedText],
    limits: BatchLimits,
    len_max: usize,
) -> Vec<TokenBatch> {
    let padded_len = |text_idx: usize| {
        let len = texts[text_idx].token_ids.len().max(1);
        len.next_multiple_of(limits.len_multiple.max(1))
            .min(len_max)
    };
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text_idx| padded_len(text_idx));

    let mut batches = Vec::new();
    for same_len in order.chunk_by(|&left, &right| padded_len(left) == padded_len(right)) {
        let len = padded_len(same_len[0]);
        let num_rows_max = (limits.num_tokens_max / len).max(1);
        let rows = same_len.chunks(num_rows_max);
        batches.extend(rows.map(|text_idxs| TokenBatch::new(texts, text_idxs, len)));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lens: &[usize]) -> Vec<TokenizedText> {
        lens.iter()
            .map(|&len| TokenizedText {
                token_ids: vec![7; len],
            })
            .collect()
    }

    #[test]
    fn exact_batches_hold_no_padding_and_every_text_once() {
        let limits = BatchLimits {
            num_tokens_max: 6,
            ..BatchLimits::EXACT
        };
        let batches = plan_batches(&texts(&[3, 2, 3, 3, 9]), limits, 16);
        assert!(batches.iter().all(|batch| !batch.is_padded()));
        let rows: Vec<_> = batches
            .iter()
            .map(|batch| batch.text_idxs.clone())
            .collect();
        assert_eq!(rows, vec![vec![1], vec![0, 2], vec![3], vec![4]]);
    }

    #[test]
    fn buckets_pad_at_the_end_and_never_beyond_the_positions() {
        let limits = BatchLimits {
            num_tokens_max: 64,
            len_multiple: 4,
        };
        let batches = plan_batches(&texts(&[1, 4, 6]), limits, 7);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].token_ids, vec![7, 0, 0, 0, 7, 7, 7, 7]);
        assert_eq!(
            batches[0].mask(),
            vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
        );
        assert_eq!(batches[1].padded_len, 7);
    }

    #[test]
    fn no_texts_make_no_batch() {
        assert!(plan_batches(&[], BatchLimits::EXACT, 16).is_empty());
    }
}
