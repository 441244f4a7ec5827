//! Strategy: which slow tensors a full step moves, how far, and in how many dimensions.
//!
//! ```text
//! full      everything                                  lora  matrices, W = W₀ + A·B (Hu et al. 2022), and norms, biases, heads
//! adapter   the bottlenecks (Houlsby et al. 2019)       bitfit  biases, norms and heads (Ben Zaken et al. 2022)
//! head      last norm and heads                         tables  nothing
//! ```
//! A low-rank change begins anew with every optimizer, that is with every release, and is part of the
//! weights at once, so that changes of many releases add up to any rank (Lialin et al. 2023, ReLoRA).
//! Input: dense gradients; those of the factors follow from them, `∂A = ∂W·Bᵀ` and `∂B = Aᵀ·∂W`.

use rand::rngs::StdRng;
use shared_model::spec::{TensorGroup, TensorShape};

use super::init::standard_normal;
use super::optimizer::AdamW;

/// What moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrategyKind {
    /// Everything.
    #[default]
    Full,
    /// Matrices by changes of at most this rank; the rest whole.
    Lora {
        /// Columns of the first factor.
        rank: usize,
    },
    /// Adapters and heads.
    Adapter,
    /// Biases, norms and heads.
    BitFit,
    /// Last norm and heads.
    Head,
    /// Nothing slow.
    Tables,
}

/// What moves, and how far each group of parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strategy {
    /// What moves.
    pub kind: StrategyKind,
    /// Factor of the learning rate of text and feature projections.
    pub projection_rate: f32,
    /// Of embeddings, layers and adapters.
    pub sequence_rate: f32,
    /// Of click and rating heads.
    pub heads_rate: f32,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            kind: StrategyKind::Full,
            projection_rate: 1.0,
            sequence_rate: 1.0,
            heads_rate: 1.0,
        }
    }
}

/// Optimizer state of one slow tensor.
#[derive(Debug, Clone)]
pub(super) enum SlowState {
    /// Every element for itself.
    Dense(AdamW),
    /// By two factors.
    LowRank(LowRank),
}

/// A change `A·B` of one matrix, already part of it.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    num_rows: usize,
    num_cols: usize,
    rank: usize,
    /// `[num_rows, rank]`.
    left: Vec<f32>,
    /// `[rank, num_cols]`.
    right: Vec<f32>,
    left_optimizer: AdamW,
    right_optimizer: AdamW,
}

impl Strategy {
    /// State for a tensor; `None` where it stays as it is.
    pub(super) fn state(self, shape: &TensorShape, rng: &mut StdRng) -> Option<SlowState> {
        if shape.group != TensorGroup::Slow || self.rate(shape) == 0.0 {
            return None;
        }
        let dense = || SlowState::Dense(AdamW::new(shape.num_rows * shape.num_cols));
        let name = shape.name.as_str();
        let is_head = name.starts_with("head.");
        match self.kind {
            StrategyKind::Full => Some(dense()),
            StrategyKind::Lora { rank } if is_matrix(shape) => {
                Some(SlowState::LowRank(LowRank::new(shape, rank, rng)))
            }
            StrategyKind::Lora { .. } => Some(dense()),
            StrategyKind::Adapter => (is_head || name.starts_with("adapters.")).then(dense),
            StrategyKind::BitFit => {
                let is_small = name.contains("norm") || name.ends_with("bias");
                (is_head || is_small).then(dense)
            }
            StrategyKind::Head => (is_head || name == "final_norm").then(dense),
            StrategyKind::Tables => None,
        }
    }

    /// Factor of the learning rate of a slow tensor.
    pub(super) fn rate(self, shape: &TensorShape) -> f32 {
        if shape.name.ends_with("projection") {
            self.projection_rate
        } else if shape.name.starts_with("head.") {
            self.heads_rate
        } else {
            self.sequence_rate
        }
    }
}

/// Whether weight decay and low-rank changes are for it: neither norm nor bias nor a single row.
pub(super) fn is_matrix(shape: &TensorShape) -> bool {
    shape.num_rows > 1 && !shape.name.contains("norm") && !shape.name.ends_with("bias")
}

impl SlowState {
    /// One update of `values` by their gradient.
    pub(super) fn step(
        &mut self,
        values: &mut [f32],
        gradient: &[f32],
        learning_rate: f32,
        weight_decay: f32,
    ) {
        match self {
            Self::Dense(optimizer) => optimizer.step(values, gradient, learning_rate, weight_decay),
            Self::LowRank(change) => change.step(values, gradient, learning_rate, weight_decay),
        }
    }
}

impl LowRank {
    /// No change yet: the second factor is zero.
    fn new(shape: &TensorShape, rank: usize, rng: &mut StdRng) -> Self {
        let (num_rows, num_cols) = (shape.num_rows, shape.num_cols);
        let rank = rank.min(num_rows).min(num_cols);
        let std = 1.0 / (rank as f32).sqrt(); // a step of the second factor moves the matrix by about as much
        Self {
            num_rows,
            num_cols,
            rank,
            left: (0..num_rows * rank)
                .map(|_| std * standard_normal(rng))
                .collect(),
            right: vec![0.0; rank * num_cols],
            left_optimizer: AdamW::new(num_rows * rank),
            right_optimizer: AdamW::new(rank * num_cols),
        }
    }

    fn step(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f32, decay: f32) {
        self.add_to(values, -1.0);
        let mut left_gradient = vec![0.0_f32; self.left.len()];
        let mut right_gradient = vec![0.0_f32; self.right.len()];
        for (row_idx, gradient) in gradient.chunks_exact(self.num_cols).enumerate() {
            for k in 0..self.rank {
                let cell = row_idx * self.rank + k;
                let right = &self.right[k * self.num_cols..][..self.num_cols];
                left_gradient[cell] = gradient.iter().zip(right).map(|(g, b)| g * b).sum();
                let into = &mut right_gradient[k * self.num_cols..][..self.num_cols];
                for (sum, g) in into.iter_mut().zip(gradient) {
                    *sum += self.left[cell] * g;
                }
            }
        }
        self.left_optimizer
            .step(&mut self.left, &left_gradient, learning_rate, decay);
        self.right_optimizer
            .step(&mut self.right, &right_gradient, learning_rate, decay);
        self.add_to(values, 1.0);
    }

    /// `values += sign·A·B`.
    fn add_to(&self, values: &mut [f32], sign: f32) {
        debug_assert_eq!(values.len(), self.num_rows * self.num_cols);
        let rows = values.chunks_exact_mut(self.num_cols);
        for (row, left) in rows.zip(self.left.chunks_exact(self.rank)) {
            for (factor, right) in left.iter().zip(self.right.chunks_exact(self.num_cols)) {
                for (value, b) in row.iter_mut().zip(right) {
                    *value += sign * factor * b;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use shared_model::spec::ModelSpec;

    fn moved(kind: StrategyKind) -> Vec<String> {
        let spec = ModelSpec {
            adapter_dim: 2,
            ..ModelSpec::default()
        };
        let strategy = Strategy {
            kind,
            ..Strategy::default()
        };
        let mut rng = StdRng::seed_from_u64(1);
        let shapes = spec.tensor_shapes(3).into_iter();
        let moved = shapes.filter(|shape| strategy.state(shape, &mut rng).is_some());
        moved.map(|shape| shape.name).collect()
    }

    #[test]
    fn every_strategy_moves_what_its_name_says() {
        let heads = ["head.click", "head.rating"];
        assert_eq!(moved(StrategyKind::Tables), Vec::<String>::new());
        assert_eq!(
            moved(StrategyKind::Head),
            ["final_norm", "head.click", "head.rating"]
        );
        let adapters = ["adapters.0.down", "adapters.0.down_bias", "adapters.0.up"];
        assert_eq!(
            moved(StrategyKind::Adapter),
            [heads.as_slice(), adapters.as_slice()].concat()
        );
        let bitfit = moved(StrategyKind::BitFit);
        assert!(bitfit.contains(&"layers.0.attention_bias".to_owned()));
        assert!(bitfit.contains(&"layers.0.norm_1".to_owned()));
        assert!(!bitfit.contains(&"layers.0.query".to_owned()));
        assert_eq!(
            moved(StrategyKind::Full),
            moved(StrategyKind::Lora { rank: 2 })
        );
        assert!(moved(StrategyKind::Full).contains(&"text.projection".to_owned()));
    }

    #[test]
    fn a_group_with_rate_zero_stays() {
        let strategy = Strategy {
            projection_rate: 0.0,
            ..Strategy::default()
        };
        let mut rng = StdRng::seed_from_u64(1);
        for shape in ModelSpec::default().tensor_shapes(3) {
            let moves = strategy.state(&shape, &mut rng).is_some();
            let expected = shape.group == TensorGroup::Slow && !shape.name.ends_with("projection");
            assert_eq!(moves, expected, "{}", shape.name);
        }
    }

    #[test]
    fn a_low_rank_change_has_its_rank_and_lowers_the_loss() {
        // loss = ½‖W − T‖², gradient W − T, with T of rank 1
        let shape = TensorShape {
            name: "layers.0.query".to_owned(),
            num_rows: 4,
            num_cols: 4,
            code_bits: 8,
            group: TensorGroup::Slow,
            per_item: false,
        };
        let (a, b) = ([1.0, -1.0, 0.5, 2.0], [0.3, 0.6, -0.2, 0.1]);
        let wanted: Vec<f32> = a
            .iter()
            .flat_map(|a| b.iter().map(move |b| a * b))
            .collect();
        let mut change = LowRank::new(&shape, 1, &mut StdRng::seed_from_u64(3));
        let mut values = vec![0.0_f32; 16];
        for _ in 0..600 {
            let gradient: Vec<f32> = values.iter().zip(&wanted).map(|(w, t)| w - t).collect();
            change.step(&mut values, &gradient, 0.02, 0.0);
        }
        let worst = values
            .iter()
            .zip(&wanted)
            .map(|(w, t)| (w - t).abs())
            .fold(0.0, f32::max);
        assert!(worst < 0.05, "{worst} away after 600 steps");
        // All 2×2 minors of a matrix of rank 1 vanish.
        for row in 0..3 {
            let minor =
                values[row * 4] * values[row * 4 + 5] - values[row * 4 + 1] * values[row * 4 + 4];
            assert!(minor.abs() < 1e-4, "minor {minor}");
        }
    }
}
