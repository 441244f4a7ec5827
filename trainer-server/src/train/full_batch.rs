//! Integer view of the windows of one full step: rows, positions, targets, competitors.

use rand::Rng;
use rand::rngs::StdRng;
use rayon::prelude::*;
use shared_model::model::sequence::{Sequence, SequenceBatch};

use super::count_history::CountHistory;
use super::windows::Window;

/// Integer view of the windows: which rows, which positions, which targets.
pub(super) struct Batch {
    /// Items of the batch, ascending; local index = position here.
    pub(super) rows: Vec<u32>,
    pub(super) sequences: SequenceBatch,
    /// Events of every sequence before padding.
    pub(super) lengths: Vec<usize>,
    pub(super) targets: Vec<Target>,
    /// Local rows that every target competes with.
    pub(super) candidates: Vec<i32>,
    /// Whether the candidates are the whole catalogue.
    pub(super) is_full_softmax: bool,
    /// ln(num_items / num_candidates).
    pub(super) log_q: f32,
    /// One random local row per target, the negative of the click head.
    pub(super) click_negatives: Vec<i32>,
    pub(super) prior: PriorFeatures,
    /// Of the dropout masks that are drawn on the host.
    pub(super) dropout_seed: u64,
}

/// Features of the item prior at the moments of the targets.
pub(super) struct PriorFeatures {
    pub(super) num_moments: usize,
    pub(super) num_half_lives: usize,
    /// Of the candidates at every distinct moment, `[num_moments, num_candidates, num_half_lives]`.
    pub(super) of_candidates: Vec<f32>,
    /// Index of each target's moment, `[num_targets]`.
    pub(super) moments: Vec<i32>,
    /// Of each target at its moment, `[num_targets, num_half_lives]`.
    pub(super) of_targets: Vec<f32>,
}

pub(super) struct Target {
    pub(super) position: i32,
    pub(super) row: i32,
    pub(super) target_weight: f32,
    pub(super) click: Option<bool>,
    pub(super) rating: Option<f32>,
    /// When, milliseconds since 1970-01-01 UTC.
    occurred_at: i64,
}

impl Batch {
    pub(super) fn new(
        windows: &[Window],
        history: &CountHistory,
        num_items: usize,
        num_negatives: usize,
        rng: &mut StdRng,
    ) -> Self {
        let is_full_softmax = num_negatives >= num_items;
        let negatives: Vec<u32> = if is_full_softmax {
            (0..num_items as u32).collect() // fits: NUM_ITEMS_MAX is 2^20
        } else {
            (0..num_negatives)
                .map(|_| rng.random_range(0..num_items as u32))
                .collect()
        };
        let mut rows: Vec<u32> = windows
            .iter()
            .flat_map(|window| &window.examples)
            .map(|e| e.item_idx)
            .collect();
        rows.extend(&negatives);
        rows.sort_unstable();
        rows.dedup();
        let mut local = vec![0_i32; num_items];
        for (local_idx, row) in rows.iter().enumerate() {
            local[*row as usize] = local_idx as i32; // fits like the rows
        }
        let inputs: Vec<Sequence> = windows.iter().map(Window::sequence).collect();
        let lengths = inputs
            .iter()
            .map(|sequence| sequence.tokens.len())
            .collect();
        let mut sequences = SequenceBatch::new(&inputs, 0);
        sequences.map_rows(|row| local[row as usize]);
        let targets = targets_of(windows, sequences.num_positions(), &local);
        let candidates: Vec<i32> = negatives.iter().map(|row| local[*row as usize]).collect();
        let click_negatives = targets
            .iter()
            .map(|_| candidates[rng.random_range(0..candidates.len())])
            .collect();
        let prior = PriorFeatures::new(history, &targets, &negatives, &rows);
        let log_q = (num_items as f32 / candidates.len() as f32).ln();
        Self {
            rows,
            sequences,
            lengths,
            targets,
            candidates,
            is_full_softmax,
            log_q,
            click_negatives,
            prior,
            dropout_seed: rng.random(),
        }
    }
}

impl PriorFeatures {
    /// `candidates` are items; target rows index `rows`.
    fn new(history: &CountHistory, targets: &[Target], candidates: &[u32], rows: &[u32]) -> Self {
        let mut distinct: Vec<i64> = targets.iter().map(|target| target.occurred_at).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let moment = |target: &Target| {
            distinct.partition_point(|at| *at < target.occurred_at) as i32 // fits: a batch is small
        };
        let of_targets = targets
            .iter()
            .flat_map(|target| history.features(&[rows[target.row as usize]], target.occurred_at))
            .collect();
        let moment_len = candidates.len() * history.num_half_lives();
        let mut of_candidates = vec![0.0; distinct.len() * moment_len];
        of_candidates
            .par_chunks_mut(moment_len.max(1))
            .zip(&distinct)
            .for_each(|(features, at_millis)| {
                features.copy_from_slice(&history.features(candidates, *at_millis));
            });
        Self {
            num_moments: distinct.len(),
            num_half_lives: history.num_half_lives(),
            of_candidates,
            moments: targets.iter().map(moment).collect(),
            of_targets,
        }
    }
}

fn targets_of(windows: &[Window], num_positions: usize, local: &[i32]) -> Vec<Target> {
    let mut targets = Vec::new();
    for (window_idx, window) in windows.iter().enumerate() {
        for (position, example) in window.targets() {
            if example.target_weight > 0.0 || example.click.is_some() || example.rating.is_some() {
                targets.push(Target {
                    position: (window_idx * num_positions + position) as i32, // fits: a batch is small
                    row: local[example.item_idx as usize],
                    target_weight: example.target_weight,
                    click: example.click,
                    rating: example.rating,
                    occurred_at: example.occurred_at,
                });
            }
        }
    }
    targets
}
