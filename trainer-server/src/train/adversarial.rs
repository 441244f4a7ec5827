//! Adversarial training: the step also learns from item rows moved where they hurt most.
//!
//! FGM moves every row once, `r = ε·g/‖g‖` (Miyato et al. 2017); PGD several times by `2.5·ε/num_steps`,
//! held within `‖r‖ ≤ ε` (Madry et al. 2018). The gradient is the mean of the clean and the moved one.

use shared_model::model::parameters::ParameterSet;

/// Which rows are moved, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Adversarial {
    /// None.
    #[default]
    None,
    /// All of the batch, once.
    Fgm {
        /// Length of the move.
        epsilon: f32,
    },
    /// All of the batch, step by step.
    Pgd {
        /// Longest move.
        epsilon: f32,
        /// Moves.
        num_steps: u32,
    },
}

impl Adversarial {
    /// Lengths of one move and of all together, and how many there are.
    pub(super) fn moves(self) -> (f32, f32, u32) {
        match self {
            Self::None => (0.0, 0.0, 0),
            Self::Fgm { epsilon } => (epsilon, epsilon, 1),
            Self::Pgd { epsilon, num_steps } => {
                (2.5 * epsilon / num_steps.max(1) as f32, epsilon, num_steps)
            }
        }
    }
}

/// Id rows before they were moved.
pub(super) struct Moved {
    rows: Vec<u32>,
    before: Vec<f32>,
}

impl Moved {
    /// Remembers `rows` as they are.
    pub(super) fn new(parameters: &ParameterSet, rows: &[u32]) -> Self {
        let dim = parameters.spec.embedding_dim as usize;
        Self {
            rows: rows.to_vec(),
            before: super::full_step::gather(parameters.tensor("item.id_rows"), dim, rows),
        }
    }

    /// Moves every row by `length` along its gradient, within `length_max` of where it was.
    pub(super) fn push(
        &self,
        parameters: &mut ParameterSet,
        gradient: &[f32],
        length: f32,
        length_max: f32,
    ) {
        let dim = parameters.spec.embedding_dim as usize;
        let table = parameters.tensor_mut("item.id_rows");
        let given = self.rows.iter().zip(gradient.chunks_exact(dim));
        for ((row, gradient), before) in given.zip(self.before.chunks_exact(dim)) {
            let values = &mut table[*row as usize * dim..][..dim];
            let norm = norm(gradient.iter().copied());
            if norm == 0.0 {
                continue;
            }
            for (value, g) in values.iter_mut().zip(gradient) {
                *value += length * g / norm;
            }
            let moved = self::norm(values.iter().zip(before).map(|(now, then)| now - then));
            if moved > length_max {
                for (value, before) in values.iter_mut().zip(before) {
                    *value = before + (*value - before) * length_max / moved;
                }
            }
        }
    }

    /// Puts all rows back, to the bit.
    pub(super) fn restore(self, parameters: &mut ParameterSet) {
        let dim = parameters.spec.embedding_dim as usize;
        let table = parameters.tensor_mut("item.id_rows");
        for (row, before) in self.rows.iter().zip(self.before.chunks_exact(dim)) {
            table[*row as usize * dim..][..dim].copy_from_slice(before);
        }
    }
}

fn norm(values: impl Iterator<Item = f32>) -> f32 {
    values.map(|value| value * value).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use shared_model::spec::ModelSpec;

    #[test]
    fn pushed_rows_stay_within_the_ball_and_come_back() {
        let spec = ModelSpec {
            embedding_dim: 4,
            num_heads: 1,
            ..ModelSpec::default()
        };
        let mut parameters = init_parameters(&spec, 3, 1);
        parameters.tensor_mut("item.id_rows").fill(0.25);
        let original = parameters.clone();
        let moved = Moved::new(&parameters, &[0, 2]);
        let gradient = [3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        moved.push(&mut parameters, &gradient, 0.4, 0.5);
        let rows = parameters.tensor("item.id_rows");
        assert!((rows[0] - 0.49).abs() < 1e-6 && (rows[1] - 0.57).abs() < 1e-6);
        assert_eq!(rows[4..], [0.25; 8], "no gradient, no move");
        moved.push(&mut parameters, &gradient, 0.4, 0.5);
        let rows = parameters.tensor("item.id_rows");
        assert!((rows[0] - 0.55).abs() < 1e-6 && (rows[1] - 0.65).abs() < 1e-6);
        moved.restore(&mut parameters);
        assert_eq!(parameters, original);
    }

    #[test]
    fn fgm_is_one_move_and_pgd_several() {
        assert_eq!(Adversarial::None.moves().2, 0);
        assert_eq!(Adversarial::Fgm { epsilon: 0.2 }.moves(), (0.2, 0.2, 1));
        let pgd = Adversarial::Pgd {
            epsilon: 0.2,
            num_steps: 5,
        };
        assert_eq!(pgd.moves(), (0.1, 0.2, 5));
    }
}
