//! Next-item loss and its gradients, tile by tile, so that no matrix of all positions and candidates exists.
//!
//! ```text
//! s_tc = u_t·v_c + b_c + ln q + a_c + prior_c(moment of t)     loss = Σ w_t (logsumexp_c s_tc − s_t,target) / Σ w
//! r_t = w_t / (Σ w · Σ_c e_tc)     e_tc = exp(s_tc − max_c)
//! ∂u_t = r_t Σ_c e_tc v_c     ∂v_c = Σ_t e_tc (r_t u_t)     less w_t/Σw at the target
//! ```
//!
//! `a` and the penalty of harmful items are those of `train::objective`. With a penalty, what follows the softmax
//! reads `e_tc·(1 + h_c − h̄_t)` for `e_tc`, where `h̄_t = Σ_c e_tc h_c / Σ_c e_tc` is added to the loss of the target.
//!
//! The full softmax has the target among its candidates; with sampled candidates it stands beside them, and a
//! candidate that is the target is left out. The same loss as `losses`, which is the reference.

use std::ops::Range;

use super::elementwise::{add_multiple, add_scaled, dot, exponentials};
use super::matmul::{Panels, Rows, RowsMut, Start, add_transposed_product, multiply};
use super::prior::Prior;
use super::vector::vectorized;
use super::weights::Gradients;
use crate::train::full_batch::{Batch, Target};
use crate::train::objective::Objective;

/// Values of one tile: with the candidates' vectors it is to fit a core's cache.
const TILE_VALUES: usize = 240_000;
/// Positions of one tile; multiples of the rows of a product's block.
const TILE_ROWS_MIN: usize = 6;
const TILE_ROWS_MAX: usize = 96;
/// Score of a sampled candidate that is the target itself, as in `losses`.
const ACCIDENTAL_HIT: f32 = -1.0e9;

/// What every position competes against.
pub(super) struct Candidates<'a> {
    batch: &'a Batch,
    dim: usize,
    /// Vectors transposed, for scores.
    columns: Panels,
    /// Vectors, for gradients of users.
    rows: Panels,
    /// Bias, adjustment for popularity, and the logQ correction of sampled ones, `[num_candidates]`.
    offsets: Vec<f32>,
    /// Adjustment for popularity of the items of the batch, `[num_rows]`; empty where there is none.
    adjustments: Vec<f32>,
    /// Weighted harm of the items of the batch, `[num_rows]`, and of the candidates; empty where there is none.
    harm: Vec<f32>,
    harm_of_candidates: Vec<f32>,
    /// `(row, candidate)`, sorted: where a target stands among sampled candidates.
    places: Vec<(i32, usize)>,
    prior: Prior<'a>,
    /// Sum of the targets' weights, at least 1.
    weight_sum: f32,
}

/// Sums of one lane over sampled candidates; the whole catalogue needs none beside those of its items.
pub(super) struct CandidateSums {
    /// `[num_candidates, dim]`
    vectors: Vec<f32>,
    /// `[num_candidates]`
    bias: Vec<f32>,
}

/// Memory of one tile.
#[derive(Default)]
pub(super) struct TileScratch {
    /// `[tile_rows, num_candidates]`
    scores: Vec<f32>,
    /// `[tile_rows, dim]`
    mixed: Vec<f32>,
    /// r, `[tile_rows]`
    factors: Vec<f32>,
}

/// User vectors of a chunk's targets, and what is learned about them; both `[num_targets, dim]`.
pub(super) struct Users<'a> {
    pub(super) values: &'a [f32],
    pub(super) gradient: &'a mut [f32],
}

impl Users<'_> {
    /// The same for a shorter time.
    pub(super) fn reborrow(&mut self) -> Users<'_> {
        Users {
            values: self.values,
            gradient: self.gradient,
        }
    }
}

/// Vectors `[num_rows, dim]` and biases `[num_rows]` of the items of the batch.
#[derive(Clone, Copy)]
pub(super) struct ItemView<'a> {
    pub(super) vectors: &'a [f32],
    pub(super) bias: &'a [f32],
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        batch: &'a Batch,
        items: ItemView,
        prior_weights: &'a [f32],
        objective: &Objective,
    ) -> Self {
        let dim = items.vectors.len() / batch.rows.len();
        let row = |candidate: &i32| *candidate as usize; // rows are never negative
        let mut gathered = Vec::new();
        let vectors = if batch.is_full_softmax {
            items.vectors
        } else {
            gathered.reserve(batch.candidates.len() * dim);
            for candidate in &batch.candidates {
                gathered.extend_from_slice(&items.vectors[row(candidate) * dim..][..dim]);
            }
            &gathered
        };
        let log_q = if batch.is_full_softmax {
            0.0
        } else {
            batch.log_q
        };
        let adjustments = objective.offsets(&batch.rows).unwrap_or_default();
        let harm = objective.harm(&batch.rows).unwrap_or_default();
        let offsets = batch.candidates.iter().map(|candidate| {
            let adjustment = adjustments.get(row(candidate)).copied().unwrap_or(0.0);
            items.bias[row(candidate)] + log_q + adjustment
        });
        let harm_of_candidates = if harm.is_empty() {
            Vec::new()
        } else {
            batch
                .candidates
                .iter()
                .map(|candidate| harm[row(candidate)])
                .collect()
        };
        let mut places = Vec::new();
        if !batch.is_full_softmax {
            places.extend(batch.candidates.iter().copied().zip(0..));
            places.sort_unstable();
        }
        let weights = batch.targets.iter().map(|target| target.target_weight);
        let vectors = Rows::dense(vectors, dim);
        let (columns, rows) =
            rayon::join(|| Panels::of_transposed(vectors), || Panels::of(vectors));
        Self {
            batch,
            dim,
            columns,
            rows,
            offsets: offsets.collect(),
            adjustments,
            harm,
            harm_of_candidates,
            places,
            prior: Prior::new(&batch.prior, prior_weights),
            weight_sum: weights.sum::<f32>().max(1.0),
        }
    }

    /// Zeros.
    pub(super) fn sums(&self) -> CandidateSums {
        let num_sums = if self.batch.is_full_softmax {
            0
        } else {
            self.offsets.len()
        };
        CandidateSums {
            vectors: vec![0.0; num_sums * self.dim],
            bias: vec![0.0; num_sums],
        }
    }

    /// Adds loss and gradients of the targets `first_target..`, one for each row of `users`.
    pub(super) fn learn(
        &self,
        first_target: usize,
        users: Users,
        items: ItemView,
        sums: &mut Gradients,
        candidate_sums: &mut CandidateSums,
        scratch: &mut TileScratch,
    ) {
        let tile_rows = (TILE_VALUES / self.offsets.len()).clamp(TILE_ROWS_MIN, TILE_ROWS_MAX)
            / TILE_ROWS_MIN
            * TILE_ROWS_MIN;
        let tile_len = tile_rows * self.dim;
        let tiles = users
            .values
            .chunks(tile_len)
            .zip(users.gradient.chunks_mut(tile_len));
        for (tile_idx, (values, gradient)) in tiles.enumerate() {
            let first = first_target + tile_idx * tile_rows;
            let targets = first..first + values.len() / self.dim;
            let tile = Users { values, gradient };
            self.tile(targets, tile, items, sums, candidate_sums, scratch);
        }
    }

    fn tile(
        &self,
        targets: Range<usize>,
        users: Users,
        items: ItemView,
        sums: &mut Gradients,
        candidate_sums: &mut CandidateSums,
        scratch: &mut TileScratch,
    ) {
        if self.batch.targets[targets.clone()]
            .iter()
            .all(|target| target.target_weight == 0.0)
        {
            return;
        }
        let (dim, num_candidates) = (self.dim, self.offsets.len());
        let num_rows = targets.len();
        let TileScratch {
            scores,
            mixed,
            factors,
        } = scratch;
        scores.resize(num_rows * num_candidates, 0.0);
        factors.clear();
        multiply(
            Rows::dense(users.values, dim),
            &self.columns,
            RowsMut::dense(scores, num_candidates),
            Start::Bias(&self.offsets),
        );
        let rows = scores.chunks_exact_mut(num_candidates);
        let users_of_rows = users.values.chunks_exact(dim);
        let rows: Vec<Row> = targets
            .clone()
            .zip(rows)
            .zip(users_of_rows)
            .map(|((target_idx, scores), user)| self.row(target_idx, scores, user, items, sums))
            .collect();
        factors.extend(rows.iter().map(|row| row.factor));
        let exponentials = Rows::dense(scores, num_candidates);
        mixed.resize(num_rows * dim, 0.0);
        multiply(
            exponentials,
            &self.rows,
            RowsMut::dense(mixed, dim),
            Start::Zero,
        );
        self.spread(targets, &rows, users, mixed, items, sums);
        let (vectors, bias) = if self.batch.is_full_softmax {
            (&mut sums.vectors, &mut sums.bias)
        } else {
            (&mut candidate_sums.vectors, &mut candidate_sums.bias)
        };
        add_transposed_product(
            exponentials,
            Rows::dense(mixed, dim),
            RowsMut::dense(vectors, dim),
        );
        add_weighted_rows(bias, factors, scores);
    }

    /// Adds `r∘(E·V)` and the targets' own parts to the gradients; `mixed`, which is `E·V`, ← `r∘u`.
    fn spread(
        &self,
        targets: Range<usize>,
        rows: &[Row],
        users: Users,
        mixed: &mut [f32],
        items: ItemView,
        sums: &mut Gradients,
    ) {
        let dim = self.dim;
        let pairs = users
            .values
            .chunks_exact(dim)
            .zip(users.gradient.chunks_exact_mut(dim));
        let mixed = mixed.chunks_exact_mut(dim);
        for (((row, target_idx), mixed), (user, gradient)) in
            rows.iter().zip(targets).zip(mixed).zip(pairs)
        {
            let item = self.batch.targets[target_idx].row as usize; // never negative
            let range = item * dim..(item + 1) * dim;
            add_multiple(gradient, row.factor, mixed);
            add_multiple(gradient, row.at_target, &items.vectors[range.clone()]);
            add_multiple(&mut sums.vectors[range], row.at_target, user);
            sums.bias[item] += row.at_target;
            for (scaled, user) in mixed.iter_mut().zip(user) {
                *scaled = row.factor * user;
            }
        }
    }

    /// `scores` of one target ← their exponentials; adds the loss and the gradient of the prior weights.
    fn row(
        &self,
        target_idx: usize,
        scores: &mut [f32],
        user: &[f32],
        items: ItemView,
        sums: &mut Gradients,
    ) -> Row {
        let target = &self.batch.targets[target_idx];
        let row = target.row as usize; // never negative
        let vector = &items.vectors[row * self.dim..(row + 1) * self.dim];
        self.prior.add_scores(target_idx, scores);
        self.leave_out_target(target, scores);
        let product = vectorized!({ dot(user, vector) });
        let adjustment = self.adjustments.get(row).copied().unwrap_or(0.0);
        let score = product + items.bias[row] + adjustment + self.prior.target_score(target_idx);
        let share = target.target_weight / self.weight_sum;
        let is_beside = !self.batch.is_full_softmax;
        let first = if is_beside { score } else { f32::MIN };
        let (max, sum) = exponentials(scores, first);
        let beside = if is_beside { (score - max).exp() } else { 0.0 };
        let sum = sum + beside;
        let factor = share / sum;
        let (beside, exposed) = self.penalise(scores, beside, row, sum);
        let at_target = factor * beside - share;
        if target.target_weight != 0.0 {
            let surprise = f64::from(sum.ln() + max) - f64::from(score);
            sums.loss += f64::from(share) * (surprise + f64::from(exposed));
            self.prior
                .add_gradient(target_idx, scores, factor, at_target, &mut sums.prior);
        }
        Row { factor, at_target }
    }

    /// Exponentials ← what the penalty makes of them. Returns the same of the target's, and the expected harm.
    fn penalise(
        &self,
        exponentials: &mut [f32],
        beside: f32,
        target: usize,
        sum: f32,
    ) -> (f32, f32) {
        if self.harm.is_empty() {
            return (beside, 0.0);
        }
        let harm = self.harm_of_candidates.as_slice();
        let exposed = vectorized!({ dot(exponentials, harm) }) + beside * self.harm[target];
        let mean = exposed / sum;
        vectorized!({
            for (value, harm) in exponentials.iter_mut().zip(harm) {
                *value *= 1.0 + harm - mean;
            }
        });
        (beside * (1.0 + self.harm[target] - mean), mean)
    }

    fn leave_out_target(&self, target: &Target, scores: &mut [f32]) {
        let first = self.places.partition_point(|(row, _)| *row < target.row);
        for (row, place) in &self.places[first..] {
            if *row != target.row {
                break;
            }
            scores[*place] += ACCIDENTAL_HIT;
        }
    }
}

/// What one row of a tile leaves behind.
struct Row {
    /// r
    factor: f32,
    /// Gradient of the target's score.
    at_target: f32,
}

impl CandidateSums {
    /// Adds them to the gradients of the items that the candidates are.
    pub(super) fn add_to(&self, candidates: &[i32], dim: usize, sums: &mut Gradients) {
        let rows = self.vectors.chunks_exact(dim).zip(&self.bias);
        vectorized!({
            for (candidate, (vector, bias)) in candidates.iter().zip(rows) {
                let row = *candidate as usize; // rows are never negative
                add_scaled(&mut sums.vectors[row * dim..(row + 1) * dim], 1.0, vector);
                sums.bias[row] += bias;
            }
        });
    }
}

/// `sums += Σ_t factor_t·row_t`.
fn add_weighted_rows(sums: &mut [f32], factors: &[f32], rows: &[f32]) {
    vectorized!({
        let len = sums.len();
        for (factor, row) in factors.iter().zip(rows.chunks_exact(len)) {
            add_scaled(sums, *factor, row);
        }
    });
}
