//! What the next-item loss knows of single items beside their scores: popularity and harm.
//!
//! *Popularity* is taken out by logit adjustment (Menon et al. 2021, "Long-tail learning via logit adjustment"):
//! while the model trains, `τ·ln π_i` is added to the logit of item `i`, with `π_i = (n_i + 1) / Σ_j (n_j + 1)`
//! from its `n_i` events. What popularity explains, scores need not; ranking goes by the scores alone, so at
//! `τ = 1` they follow lift, and at `τ = 0` frequency.
//!
//! *Harm* is penalised by expected exposure: `λ·Σ_i p_i·h_i` is added to the loss of every target, where `p` is the
//! softmax that the model would draw items by and `h_i` in 0 to 1 is what the operator says of the item. Its
//! gradient by the logit of `i` is `λ·p_i·(h_i − Σ_j p_j·h_j)`. `p` is that of the adjusted logits.
//!
//! Not here: the loss itself (`losses`, `host::softmax_loss`).

/// Per item, in the order of the catalogue; items newer than it have no event and do no harm.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Objective {
    /// `τ·ln π`, `[num_items]`; empty where τ is 0.
    offsets: Vec<f32>,
    /// Of an item without events.
    offset_of_new: f32,
    /// `λ·h`, `[num_items]`; empty where nothing is penalised.
    harm: Vec<f32>,
}

impl Objective {
    /// From the events of every item and τ, and from `h` of every item and λ.
    #[must_use]
    pub fn new(num_events: &[usize], correction: f32, harm: &[f32], penalty: f32) -> Self {
        let num_all: usize = num_events.iter().sum::<usize>() + num_events.len();
        // Counts fit f64; the result is a logit.
        let offset =
            |num: usize| correction * ((num as f64 + 1.0) / num_all.max(1) as f64).ln() as f32;
        let is_harmful = penalty > 0.0 && harm.iter().any(|harm| *harm > 0.0);
        Self {
            offsets: if correction == 0.0 {
                Vec::new()
            } else {
                num_events.iter().map(|num| offset(*num)).collect()
            },
            offset_of_new: if correction == 0.0 { 0.0 } else { offset(0) },
            harm: if is_harmful {
                harm.iter().map(|harm| penalty * harm).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// What is added to the logits of `rows`; `None` where that is nothing.
    pub(super) fn offsets(&self, rows: &[u32]) -> Option<Vec<f32>> {
        let offset = |row: &u32| {
            let known = self.offsets.get(*row as usize); // u32 fits
            known.copied().unwrap_or(self.offset_of_new)
        };
        (!self.offsets.is_empty()).then(|| rows.iter().map(offset).collect())
    }

    /// `λ·h` of `rows`; `None` where that is nothing.
    pub(super) fn harm(&self, rows: &[u32]) -> Option<Vec<f32>> {
        let harm = |row: &u32| self.harm.get(*row as usize).copied().unwrap_or(0.0); // u32 fits
        (!self.harm.is_empty()).then(|| rows.iter().map(harm).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_logarithms_of_smoothed_shares() {
        let objective = Objective::new(&[0, 1, 5], 0.5, &[], 1.0);
        let offsets = objective.offsets(&[2, 0, 9]).expect("a correction");
        let expected = [
            (6.0_f32 / 9.0).ln(),
            (1.0_f32 / 9.0).ln(),
            (1.0_f32 / 9.0).ln(),
        ];
        for (offset, expected) in offsets.iter().zip(expected) {
            assert!((offset - 0.5 * expected).abs() < 1e-6, "{offsets:?}");
        }
        assert_eq!(objective.harm(&[0]), None);
    }

    #[test]
    fn harm_is_weighted_and_new_items_do_none() {
        let objective = Objective::new(&[3, 3], 0.0, &[0.0, 0.5], 4.0);
        assert_eq!(objective.offsets(&[0]), None);
        assert_eq!(objective.harm(&[1, 0, 2]), Some(vec![2.0, 0.0, 0.0]));
        assert_eq!(
            Objective::new(&[3, 3], 0.0, &[0.0, 0.5], 0.0),
            Objective::default()
        );
        assert_eq!(
            Objective::new(&[3, 3], 0.0, &[0.0, 0.0], 4.0),
            Objective::default()
        );
    }
}
