//! Gradients of the parts of a batch, averaged by their targets: what one large batch would have given,
//! but for its negatives. Rows of different parts are brought together.

use super::full_batch::Batch;
use super::full_step::HostGradients;

/// What was added so far.
#[derive(Default)]
pub(super) struct GradientSum {
    parts: Vec<Part>,
}

struct Part {
    loss: f32,
    gradients: HostGradients,
    rows: Vec<u32>,
    num_targets: usize,
    /// Of the next-item loss, which is a mean over it.
    weight: f32,
}

/// The mean over all parts.
pub(super) struct MeanGradients {
    pub(super) loss: f32,
    pub(super) gradients: HostGradients,
    /// Items of the row gradients, ascending.
    pub(super) rows: Vec<u32>,
    pub(super) num_targets: usize,
}

impl GradientSum {
    /// Adds a part.
    pub(super) fn add(&mut self, loss: f32, gradients: HostGradients, batch: Batch) {
        let targets = batch.targets.iter();
        let weight: f32 = targets.map(|target| target.target_weight).sum();
        self.parts.push(Part {
            loss,
            gradients,
            num_targets: batch.targets.len(),
            rows: batch.rows,
            weight: weight.max(1.0),
        });
    }

    /// `None` where nothing was added.
    pub(super) fn mean(mut self) -> Option<MeanGradients> {
        if self.parts.len() <= 1 {
            let only = self.parts.pop()?;
            return Some(MeanGradients {
                loss: only.loss,
                gradients: only.gradients,
                rows: only.rows,
                num_targets: only.num_targets,
            });
        }
        let mut rows: Vec<u32> = self
            .parts
            .iter()
            .flat_map(|part| part.rows.iter().copied())
            .collect();
        rows.sort_unstable();
        rows.dedup();
        let total: f32 = self.parts.iter().map(|part| part.weight).sum();
        let mut mean = MeanGradients {
            loss: 0.0,
            gradients: HostGradients {
                slow: vec![None; self.parts[0].gradients.slow.len()],
                id_rows: Vec::new(),
                bias: Vec::new(),
                prior: vec![0.0; self.parts[0].gradients.prior.len()],
            },
            rows,
            num_targets: 0,
        };
        for part in self.parts {
            let share = part.weight / total;
            mean.loss += share * part.loss;
            mean.num_targets += part.num_targets;
            let mut gradients = part.gradients;
            gradients.id_rows = spread(&gradients.id_rows, &part.rows, &mean.rows);
            gradients.bias = spread(&gradients.bias, &part.rows, &mean.rows);
            mean.gradients.id_rows.resize(gradients.id_rows.len(), 0.0);
            mean.gradients.bias.resize(gradients.bias.len(), 0.0);
            mean.gradients.add_scaled(&gradients, share);
        }
        Some(mean)
    }
}

/// Row gradients of `rows` among those of `all`; both ascending.
fn spread(gradients: &[f32], rows: &[u32], all: &[u32]) -> Vec<f32> {
    let num_cols = gradients.len() / rows.len().max(1);
    let mut spread = vec![0.0; all.len() * num_cols];
    for (row, gradient) in rows.iter().zip(gradients.chunks_exact(num_cols.max(1))) {
        let at = all.partition_point(|one| one < row) * num_cols;
        spread[at..at + num_cols].copy_from_slice(gradient);
    }
    spread
}
