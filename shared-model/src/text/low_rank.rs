//! Changes of low rank: a pretrained network learns by small factors beside its query and value matrices.
//!
//! ```text
//! W' = W + SCALE·A·B      A [hidden_size, rank], B [rank, attention_size]      (Hu et al. 2021, LoRA)
//! ```
//! `A` starts at random and `B` at zero, so that a new change changes nothing.
//! The factors live in host memory, where they are optimized, hashed and saved; a network gets them lent,
//! to be merged into its matrices or to keep gradients.
//! Not here: optimizers, losses and files (the server).

use std::collections::BTreeMap;

use burn::module::{LoraAdapter, Module, Param, ParamGroup, Reparameterizer};
use burn::tensor::{Device, Tensor, TensorData};

use super::TextError;
use super::bert::BertModel;
use super::config::BertConfig;
use super::parameters::{NamedTensor, check_values};
use crate::ids::BlobId;

#[cfg(feature = "train")]
mod learning;

#[cfg(feature = "train")]
pub use learning::LearningEncoder;

/// Largest rank: beyond it the factors are no longer small beside a matrix of MiniLM.
pub const RANK_MAX: usize = 64;

/// Weight of the product, `alpha / rank` of the paper.
const SCALE: f64 = 2.0;

/// The matrices that change, as their paths end: queries and values, the choice of the paper.
const CHANGED: [&str; 2] = ["query.weight", "value.weight"];

/// The group of all matrices that change.
pub(super) fn changed_group() -> ParamGroup {
    ParamGroup::from_any_predicates(CHANGED.to_vec())
}

/// The factors of every changed matrix of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankChange {
    rank: usize,
    /// Layer by layer `query.a`, `query.b`, `value.a`, `value.b`; row-major.
    factors: Vec<NamedTensor>,
}

impl LowRankChange {
    /// A change that changes nothing yet; `draw` gives standard normal numbers for the first factors, which
    /// get the deviation `1 / rank`.
    ///
    /// # Errors
    /// The rank is not 1 to [`RANK_MAX`].
    pub fn new(
        config: &BertConfig,
        rank: usize,
        mut draw: impl FnMut() -> f32,
    ) -> Result<Self, TextError> {
        check_rank(rank)?;
        let deviation = 1.0 / rank as f32; // at most RANK_MAX
        let mut factors = Vec::new();
        for (name, shape) in factor_shapes(config, rank) {
            let len = shape.iter().product();
            let values = if name.ends_with(".a") {
                std::iter::repeat_with(|| deviation * draw())
                    .take(len)
                    .collect()
            } else {
                vec![0.0; len]
            };
            factors.push(NamedTensor {
                name,
                shape,
                values,
            });
        }
        Ok(Self { rank, factors })
    }

    /// A change from factors that were saved, in any order.
    ///
    /// # Errors
    /// The rank is out of bounds; a factor is missing, unexpected, there twice, not finite or of another shape
    /// than `config` and `rank` say.
    pub fn from_factors(
        config: &BertConfig,
        rank: usize,
        factors: Vec<NamedTensor>,
    ) -> Result<Self, TextError> {
        check_rank(rank)?;
        let mut by_name = BTreeMap::new();
        for factor in factors {
            check_values(&factor)?;
            if let Some(twice) = by_name.insert(factor.name.clone(), factor) {
                return Err(TextError::TensorTwice { tensor: twice.name });
            }
        }
        let mut ordered = Vec::new();
        for (name, expected) in factor_shapes(config, rank) {
            let Some(factor) = by_name.remove(&name) else {
                return Err(TextError::TensorMissing { tensor: name });
            };
            if factor.shape != expected {
                return Err(TextError::ShapeMismatch {
                    tensor: name,
                    expected,
                    actual: factor.shape,
                });
            }
            ordered.push(factor);
        }
        match by_name.into_keys().next() {
            Some(tensor) => Err(TextError::TensorUnexpected { tensor }),
            None => Ok(Self {
                rank,
                factors: ordered,
            }),
        }
    }

    /// Inner size of the products.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// All factors, in the order of the network.
    #[must_use]
    pub fn factors(&self) -> &[NamedTensor] {
        &self.factors
    }

    /// What is added to each changed matrix, in the order of the network, as a weights file has matrices:
    /// `[attention_size, hidden_size]`, row-major.
    ///
    /// # Errors
    /// It belongs to a network of other sizes than `config`.
    pub fn products(
        &self,
        config: &BertConfig,
    ) -> Result<impl Iterator<Item = Vec<f32>> + '_, TextError> {
        let shapes = factor_shapes(config, self.rank);
        if let Some(unexpected) = self.factors.get(shapes.len()) {
            let tensor = unexpected.name.clone();
            return Err(TextError::TensorUnexpected { tensor });
        }
        for (place, (tensor, expected)) in shapes.into_iter().enumerate() {
            let Some(factor) = self.factors.get(place) else {
                return Err(TextError::TensorMissing { tensor });
            };
            if factor.shape != expected {
                let actual = factor.shape.clone();
                return Err(TextError::ShapeMismatch {
                    tensor,
                    expected,
                    actual,
                });
            }
        }
        let pairs = self.factors.chunks_exact(2);
        Ok(pairs.map(|pair| product(&pair[0], &pair[1])))
    }

    /// Number of values in all factors.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.factors.iter().map(|factor| factor.values.len()).sum()
    }

    /// All values, factor by factor.
    #[must_use]
    pub fn to_flat(&self) -> Vec<f32> {
        let values = self.factors.iter().flat_map(|factor| &factor.values);
        values.copied().collect()
    }

    /// Replaces all values by `flat`, which is laid out as [`Self::to_flat`] gives it.
    pub fn set_flat(&mut self, flat: &[f32]) {
        assert_eq!(flat.len(), self.num_values(), "a change keeps its shapes");
        let mut rest = flat;
        for factor in &mut self.factors {
            let (own, others) = rest.split_at(factor.values.len());
            factor.values.copy_from_slice(own);
            rest = others;
        }
    }

    /// Hash of rank, names and values.
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"freshet low-rank change 1");
        hasher.update(&(self.rank as u64).to_le_bytes()); // at most RANK_MAX
        for factor in &self.factors {
            hasher.update(format!("\n{} {:?}\n", factor.name, factor.shape).as_bytes());
            let bytes: Vec<u8> = factor
                .values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            hasher.update(&bytes);
        }
        BlobId(*hasher.finalize().as_bytes())
    }

    /// A copy of `model` with this change added to its matrices, without gradients.
    pub(super) fn merged_into(&self, model: &BertModel) -> BertModel {
        self.lent_to(model.clone()).materialize()
    }

    /// `model` with all its weights frozen and the factors beside them.
    fn lent_to(&self, model: BertModel) -> BertModel {
        let factors = self.factors.iter();
        model.apply_reparameterization(Lender {
            factors: factors
                .map(|factor| (factor.name.as_str(), factor))
                .collect(),
        })
    }
}

/// `SCALE·(A·B)ᵀ`.
fn product(a: &NamedTensor, b: &NamedTensor) -> Vec<f32> {
    let (rank, d_out) = (b.shape[0], b.shape[1]);
    let entry = |out: usize, a_row: &[f32]| {
        let pairs = a_row.iter().zip(b.values.iter().skip(out).step_by(d_out));
        SCALE as f32 * pairs.map(|(a, b)| a * b).sum::<f32>() // a small integer
    };
    (0..d_out)
        .flat_map(|out| a.values.chunks_exact(rank).map(move |a_row| (out, a_row)))
        .map(|(out, a_row)| entry(out, a_row))
        .collect()
}

fn check_rank(rank: usize) -> Result<(), TextError> {
    if (1..=RANK_MAX).contains(&rank) {
        return Ok(());
    }
    Err(TextError::ConfigField {
        field: "rank",
        actual: rank.to_string(),
        expected: "1 to 64",
    })
}

/// Names and shapes of all factors, in the order of the network.
pub(super) fn factor_shapes(config: &BertConfig, rank: usize) -> Vec<(String, Vec<usize>)> {
    let (dim, attention_size) = (config.hidden_size, config.attention_size());
    let mut shapes = Vec::new();
    for layer in 0..config.num_hidden_layers {
        for matrix in CHANGED {
            let path = format!("layers.{layer}.{matrix}");
            shapes.push((format!("{path}.a"), vec![dim, rank]));
            shapes.push((format!("{path}.b"), vec![rank, attention_size]));
        }
    }
    shapes
}

/// Puts the factors beside the matrices they belong to.
struct Lender<'a> {
    factors: BTreeMap<&'a str, &'a NamedTensor>,
}

impl Lender<'_> {
    fn factor(&self, path: &str, side: &str, device: &Device) -> Option<Param<Tensor<2>>> {
        let factor = self.factors.get(format!("{path}.{side}").as_str())?;
        let values = TensorData::new(factor.values.clone(), factor.shape.clone());
        Some(Param::from_tensor(Tensor::from_data(values, device)))
    }
}

impl Reparameterizer for Lender<'_> {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let param = param.set_require_grad(false);
        let device = param.base().device();
        let (a, b) = (
            self.factor(path, "a", &device),
            self.factor(path, "b", &device),
        );
        let adapter = a.zip(b).map(|(a, b)| LoraAdapter { a, b, scale: SCALE });
        (param, adapter)
    }
}

#[cfg(all(test, feature = "train"))]
mod tests;
