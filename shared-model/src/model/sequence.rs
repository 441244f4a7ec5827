//! Sequences as the Ranker reads them: events of one user, padded into a batch.
//!
//! Position 0 is the start token; position `j` has seen the first `j` events and predicts the next.
//! The gap feature of an event is the time until the moment that is predicted: the next event, or
//! `now` for the last one, which the page knows when it ranks.

use crate::event::EventKind;
use crate::spec::gap_bucket;

/// One event of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Row of the item in the item vectors.
    pub item_idx: u32,
    /// What was done.
    pub kind: EventKind,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
}

/// Events of one user, oldest first, and the moment of ranking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// At most `history_len` events.
    pub tokens: Vec<Token>,
    /// When the next item is wanted, milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
}

/// Sequences padded at the end to one length, as integer features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceBatch {
    /// Number of sequences.
    pub num_sequences: usize,
    /// Events per sequence after padding; the model adds the start token.
    pub num_events: usize,
    /// `[num_sequences, num_events]`, padding is 0.
    pub item_rows: Vec<i32>,
    /// `[num_sequences, num_events]`.
    pub kinds: Vec<i32>,
    /// `[num_sequences, num_events]`.
    pub gaps: Vec<i32>,
}

impl SequenceBatch {
    /// Pads `sequences` to `num_events_min` events or the longest, whichever is more.
    #[must_use]
    pub fn new(sequences: &[Sequence], num_events_min: usize) -> Self {
        let longest = sequences
            .iter()
            .map(|sequence| sequence.tokens.len())
            .max()
            .unwrap_or(0);
        let num_events = longest.max(num_events_min);
        let len = sequences.len() * num_events;
        let mut batch = Self {
            num_sequences: sequences.len(),
            num_events,
            item_rows: Vec::with_capacity(len),
            kinds: Vec::with_capacity(len),
            gaps: Vec::with_capacity(len),
        };
        for sequence in sequences {
            batch.push(sequence);
        }
        batch
    }

    /// Positions per sequence: the start token and the events.
    #[must_use]
    pub fn num_positions(&self) -> usize {
        self.num_events + 1
    }

    /// Replaces global item indices by what `local` gives, for models that hold only some rows.
    pub fn map_rows(&mut self, local: impl Fn(i32) -> i32) {
        for row in &mut self.item_rows {
            *row = local(*row);
        }
    }

    fn push(&mut self, sequence: &Sequence) {
        for (token_idx, token) in sequence.tokens.iter().enumerate() {
            let next_at = sequence
                .tokens
                .get(token_idx + 1)
                .map_or(sequence.now_millis, |next| next.occurred_at);
            self.item_rows.push(token.item_idx as i32); // fits: items are bounded by NUM_ITEMS_MAX
            self.kinds.push(token.kind.idx() as i32); // fits: a dozen kinds
            self.gaps
                .push(gap_bucket(next_at.saturating_sub(token.occurred_at)) as i32); // fits: two dozen buckets
        }
        let padded_len = self.item_rows.len() + self.num_events - sequence.tokens.len();
        self.item_rows.resize(padded_len, 0);
        self.kinds.resize(padded_len, 0);
        self.gaps.resize(padded_len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_look_forward_and_padding_is_at_the_end() {
        let token = |item_idx, occurred_at| Token {
            item_idx,
            kind: EventKind::Click,
            occurred_at,
        };
        let long = Sequence {
            tokens: vec![token(3, 0), token(4, 1000)],
            now_millis: 5000,
        };
        let short = Sequence {
            tokens: vec![token(7, 0)],
            now_millis: 0,
        };
        let batch = SequenceBatch::new(&[long, short], 0);
        assert_eq!(batch.num_positions(), 3);
        assert_eq!(batch.item_rows, vec![3, 4, 7, 0]);
        assert_eq!(batch.gaps, vec![1, 3, 0, 0]);
    }
}
