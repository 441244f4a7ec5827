//! The sequences of a batch, packed: only positions that a target needs, one sequence behind the other.
//!
//! Attention is causal, so nothing behind the last target of a sequence matters; padding is not computed at all.
//! Comes from the padded integers of `full_batch`.

use std::ops::Range;

use crate::train::full_batch::Batch;

/// One sequence and where it lies among all of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackedSequence {
    /// Index of its first event in the padded integers of the batch.
    pub(super) first_event: usize,
    /// Positions: the start token and the events up to the last target.
    pub(super) len: usize,
    /// Positions of all sequences before it.
    pub(super) first_token: usize,
    /// Attention weights of one head of all sequences before it: their squared lengths.
    pub(super) first_weight: usize,
    /// Its targets in the batch.
    pub(super) targets: Range<usize>,
}

/// Sequences that hold a target, in the order of the batch.
pub(super) fn pack(batch: &Batch) -> Vec<PackedSequence> {
    let num_positions = batch.sequences.num_positions();
    let mut packed: Vec<PackedSequence> = Vec::new();
    let mut last_window = None;
    for (target_idx, target) in batch.targets.iter().enumerate() {
        let position = target.position as usize; // never negative
        let (window, len) = (position / num_positions, position % num_positions + 1);
        if last_window == Some(window)
            && let Some(sequence) = packed.last_mut()
        {
            sequence.len = sequence.len.max(len);
            sequence.targets.end = target_idx + 1;
            continue;
        }
        last_window = Some(window);
        packed.push(PackedSequence {
            first_event: window * batch.sequences.num_events,
            len,
            first_token: 0,
            first_weight: 0,
            targets: target_idx..target_idx + 1,
        });
    }
    let (mut num_tokens, mut num_weights) = (0, 0);
    for sequence in &mut packed {
        sequence.first_token = num_tokens;
        sequence.first_weight = num_weights;
        num_tokens += sequence.len;
        num_weights += sequence.len * sequence.len;
    }
    packed
}

/// Consecutive sequences that are computed together.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a>(pub(super) &'a [PackedSequence]);

impl Chunk<'_> {
    /// Positions of all its sequences.
    pub(super) fn num_tokens(self) -> usize {
        self.0.iter().map(|sequence| sequence.len).sum()
    }

    /// Attention weights of one head.
    pub(super) fn num_weights(self) -> usize {
        self.0.iter().map(|sequence| sequence.len.pow(2)).sum()
    }

    /// Position of its first token in the batch.
    pub(super) fn first_token(self) -> usize {
        self.0.first().map_or(0, |sequence| sequence.first_token)
    }

    /// Place of its first attention weight in the batch, of one head.
    pub(super) fn first_weight(self) -> usize {
        self.0.first().map_or(0, |sequence| sequence.first_weight)
    }

    /// Its targets in the batch.
    pub(super) fn targets(self) -> Range<usize> {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => first.targets.start..last.targets.end,
            _ => 0..0, // no sequences
        }
    }
}

/// Parts of at most `num_tokens_max` positions, at least one sequence each.
pub(super) fn chunks(sequences: &[PackedSequence], num_tokens_max: usize) -> Vec<Chunk<'_>> {
    split(sequences, |part| Chunk(part).num_tokens() > num_tokens_max)
}

/// At most `num_lanes` runs of sequences with about the same work each.
pub(super) fn lanes(sequences: &[PackedSequence], num_lanes: usize) -> Vec<&[PackedSequence]> {
    let work = |sequence: &PackedSequence| sequence.len + 2 * sequence.targets.len();
    let all: usize = sequences.iter().map(work).sum();
    let mut lanes = Vec::new();
    let (mut first, mut done) = (0, 0);
    for (idx, sequence) in sequences.iter().enumerate() {
        done += work(sequence);
        let is_full = done * num_lanes >= all * (lanes.len() + 1);
        if is_full {
            lanes.push(&sequences[first..=idx]);
            first = idx + 1;
        }
    }
    lanes
}

/// Cuts before the sequence with which a part would be too long.
fn split<'a>(
    sequences: &'a [PackedSequence],
    is_too_long: impl Fn(&[PackedSequence]) -> bool,
) -> Vec<Chunk<'a>> {
    let mut chunks = Vec::new();
    let mut first = 0;
    for end in 1..=sequences.len() {
        let is_last = end == sequences.len();
        if is_last || is_too_long(&sequences[first..=end]) {
            chunks.push(Chunk(&sequences[first..end]));
            first = end;
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(lens: &[usize]) -> Vec<PackedSequence> {
        let sequence = |(idx, len): (usize, &usize)| PackedSequence {
            first_event: 0,
            len: *len,
            first_token: 0,
            first_weight: 0,
            targets: idx..idx + 1,
        };
        lens.iter().enumerate().map(sequence).collect()
    }

    #[test]
    fn chunks_hold_every_sequence_once_and_no_more_positions_than_wanted() {
        let sequences = sequences(&[5, 5, 30, 1, 1, 9, 20]);
        let chunks = chunks(&sequences, 20);
        let lens: Vec<usize> = chunks.iter().map(|chunk| chunk.num_tokens()).collect();
        assert_eq!(lens, [10, 30, 11, 20]);
        assert_eq!(chunks[2].targets(), 3..6);
    }

    #[test]
    fn lanes_share_the_work() {
        let sequences = sequences(&[10; 12]);
        let lens: Vec<usize> = lanes(&sequences, 3).iter().map(|lane| lane.len()).collect();
        assert_eq!(lens, [4, 4, 4]);
        assert_eq!(lanes(&sequences[..2], 5).len(), 2);
        assert_eq!(lanes(&[], 5).len(), 0);
    }
}
