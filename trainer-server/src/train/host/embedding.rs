//! What the first layer reads, and where its gradient goes.
//!
//! ```text
//! x_0 = start + position_0     x_j = √dim·v_(item j) + kind_j + gap_j + position_j
//! ```

use super::elementwise::{add, add_multiple};
use super::sequences::Chunk;
use super::weights::{Gradients, Weights};
use crate::train::full_batch::Batch;

/// The event that a position reads, as rows of the tables.
struct Event {
    item: usize,
    kind: usize,
    gap: usize,
}

/// `hidden ← x`.
///
/// # Shapes
/// `vectors`: `[num_rows, dim]`, `hidden`: `[num_tokens, dim]`.
pub(super) fn forward(
    chunk: Chunk,
    batch: &Batch,
    weights: &Weights,
    vectors: &[f32],
    hidden: &mut [f32],
) {
    let dim = weights.dim;
    let row = |table: &'_ [f32], idx: usize| -> std::ops::Range<usize> {
        debug_assert!((idx + 1) * dim <= table.len());
        idx * dim..(idx + 1) * dim
    };
    let scale = (dim as f32).sqrt(); // a small integer
    for_each_token(chunk, batch, |token, position, event| {
        let out = &mut hidden[token * dim..(token + 1) * dim];
        out.copy_from_slice(&weights.position[row(weights.position, position)]);
        match event {
            None => add(out, weights.start),
            Some(event) => {
                add_multiple(out, scale, &vectors[row(vectors, event.item)]);
                add(out, &weights.kind[row(weights.kind, event.kind)]);
                add(out, &weights.gap[row(weights.gap, event.gap)]);
            }
        }
    });
}

/// Adds the gradient of `x` to those of the tables and of the item vectors.
pub(super) fn backward(
    chunk: Chunk,
    batch: &Batch,
    weights: &Weights,
    gradient: &[f32],
    sums: &mut Gradients,
) {
    let dim = weights.dim;
    let scale = (dim as f32).sqrt(); // a small integer
    let row = |idx: usize| idx * dim..(idx + 1) * dim;
    for_each_token(chunk, batch, |token, position, event| {
        let gradient = &gradient[row(token)];
        add(&mut sums.position[row(position)], gradient);
        match event {
            None => add(&mut sums.start, gradient),
            Some(event) => {
                add_multiple(&mut sums.vectors[row(event.item)], scale, gradient);
                add(&mut sums.kind[row(event.kind)], gradient);
                add(&mut sums.gap[row(event.gap)], gradient);
            }
        }
    });
}

/// Token of the chunk, its position in its sequence, and the event it reads; the start token reads none.
fn for_each_token(chunk: Chunk, batch: &Batch, mut visit: impl FnMut(usize, usize, Option<Event>)) {
    let integers = &batch.sequences;
    let mut token = 0;
    for sequence in chunk.0 {
        for position in 0..sequence.len {
            let event = position.checked_sub(1).map(|event| {
                let idx = sequence.first_event + event;
                Event {
                    item: integers.item_rows[idx] as usize, // rows, kinds and buckets are never negative
                    kind: integers.kinds[idx] as usize,     // likewise
                    gap: integers.gaps[idx] as usize,       // likewise
                }
            });
            visit(token, position, event);
            token += 1;
        }
    }
}
