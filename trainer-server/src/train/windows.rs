//! Labelled timelines and the training windows cut from them.
//!
//! A window is a stretch of one user's events: position `j` has seen the first `j` and learns the next.

use serde::{Deserialize, Serialize};
use shared_model::event::EventKind;
use shared_model::model::sequence::{Sequence, Token};

/// One event with what is to be learned from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Row of the item.
    pub item_idx: u32,
    /// What was done.
    pub kind: EventKind,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
    /// Weight of the item as a next-item target; 0 where it is none.
    pub target_weight: f32,
    /// How much of it counts in the popularity of its item, 0 to 1; see `influence`.
    pub share: f32,
    /// Click label, where the kind says one.
    pub click: Option<bool>,
    /// Rating, where given.
    pub rating: Option<f32>,
}

impl Example {
    /// What the model sees of it.
    #[must_use]
    pub fn token(&self) -> Token {
        Token {
            item_idx: self.item_idx,
            kind: self.kind,
            occurred_at: self.occurred_at,
        }
    }
}

/// A stretch of one user's timeline whose examples from `first_target` on are learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// At most `history_len + 1` events, oldest first.
    pub examples: Vec<Example>,
    /// Index of the first example that is learned; those before it are context.
    pub first_target: usize,
}

impl Window {
    /// The events that the model reads: all but the last, which is only predicted.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        let (last, seen) = self.examples.split_last().expect("a window is never empty");
        let history = seen.iter().filter(|example| example.kind.is_history());
        Sequence {
            tokens: history.map(Example::token).collect(),
            now_millis: last.occurred_at,
        }
    }

    /// What is learned, each with the number of history events that the model has seen before it.
    pub fn targets(&self) -> impl Iterator<Item = (usize, &Example)> {
        let mut num_seen = 0;
        let counted = self.examples.iter().map(move |example| {
            let num_known = num_seen;
            num_seen += usize::from(example.kind.is_history());
            (num_known, example)
        });
        counted.skip(self.first_target)
    }
}

/// Cuts a timeline into windows that overlap by half, so that every target but a user's first ones
/// has at least half a window of context.
#[must_use]
pub fn cut(timeline: &[Example], history_len: usize) -> Vec<Window> {
    let window_len = history_len + 1;
    let mut windows = Vec::new();
    let mut learned = 0;
    while learned < timeline.len() {
        let start = if learned == 0 {
            0
        } else {
            learned.saturating_sub(history_len / 2)
        };
        let end = (start + window_len).min(timeline.len());
        windows.push(Window {
            examples: timeline[start..end].to_vec(),
            first_target: learned - start,
        });
        learned = end;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_learned_exactly_once() {
        let example = |item_idx| Example {
            item_idx,
            kind: EventKind::Purchase,
            occurred_at: 0,
            target_weight: 1.0,
            share: 1.0,
            click: None,
            rating: None,
        };
        let timeline: Vec<_> = (0..237).map(example).collect();
        let windows = cut(&timeline, 50);
        let learned: Vec<u32> = windows
            .iter()
            .flat_map(|window| &window.examples[window.first_target..])
            .map(|e| e.item_idx)
            .collect();
        assert_eq!(learned, (0..237).collect::<Vec<_>>());
        assert!(windows.iter().all(|window| window.examples.len() <= 51));
        assert!(cut(&[], 50).is_empty());
    }
}
