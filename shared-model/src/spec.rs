//! Model spec: the sizes of the Ranker and the list of its tensors.
//!
//! The spec travels in every snapshot, so that the page can build the model from bytes alone.
//! Not here: weights (`codec::state`) and arithmetic (`model`).

use serde::{Deserialize, Serialize};

use crate::codec::state::{COUNTS_TENSOR, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR};
use crate::event::EventKind;
use crate::ids::BlobId;

/// Sizes of the Ranker. Every length is bounded by [`ModelSpec::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Width of item and user vectors.
    pub embedding_dim: u32,
    /// Width of the text embeddings.
    pub text_dim: u32,
    /// Width of the operator's dense item features, all names together; 0 for none.
    pub feature_dim: u32,
    /// Events of a history that are attended to.
    pub history_len: u32,
    /// Transformer layers over the history.
    pub num_layers: u32,
    /// Attention heads per layer; divides `embedding_dim`.
    pub num_heads: u32,
    /// Width of the feed-forward layer.
    pub ff_dim: u32,
    /// Half-lives of the decayed item counts, in seconds, ascending.
    pub half_lives_secs: Vec<u32>,
    /// Neighbours listed per item; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub num_neighbours: u32,
    /// Width of the bottleneck after each layer (Houlsby et al. 2019); 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub adapter_dim: u32,
    /// Whether taste, the product of user and item vector, has a learned weight in the score.
    #[serde(default, skip_serializing_if = "is_absent")]
    pub has_taste_weight: bool,
    /// Width of a code of the id rows, 4 or 8.
    #[serde(default = "eight_bits", skip_serializing_if = "is_eight_bits")]
    pub id_code_bits: u8,
    /// Width of a code of the text rows, 4 or 8.
    #[serde(default = "eight_bits", skip_serializing_if = "is_eight_bits")]
    pub text_code_bits: u8,
    /// Width of a code of the matrices that all items share, 4 or 8.
    #[serde(default = "eight_bits", skip_serializing_if = "is_eight_bits")]
    pub matrix_code_bits: u8,
}

/// Keeps the JSON of a spec without a part, and so its hash, as it was before there was such a part.
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Likewise.
fn is_absent(value: &bool) -> bool {
    !value
}

/// What a spec from before there were other widths means.
fn eight_bits() -> u8 {
    8
}

/// Likewise.
fn is_eight_bits(value: &u8) -> bool {
    *value == eight_bits()
}

/// What a tensor belongs to, and so when it may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TensorGroup {
    /// Rows that change with every fast version.
    Fast,
    /// Weights that change in release versions only.
    Slow,
    /// Counted tables that change in release versions only.
    Neighbours,
    /// Derived from item texts and features by the encoder of this generation.
    Content,
}

/// Name, shape and code width of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorShape {
    /// Stable name, for example `item.id_rows`.
    pub name: String,
    /// Number of rows; the number of items where `per_item`.
    pub num_rows: usize,
    /// Row length.
    pub num_cols: usize,
    /// 4, 8 or 16: the width of a code.
    pub code_bits: u8,
    /// When it changes.
    pub group: TensorGroup,
    /// Whether row `i` belongs to item `i`, so that the tensor grows with the catalogue.
    pub per_item: bool,
}

impl TensorShape {
    /// Whether its values come from gradients, and not from texts or counts.
    #[must_use]
    pub fn is_trained(&self) -> bool {
        match self.group {
            TensorGroup::Fast => self.name != COUNTS_TENSOR,
            TensorGroup::Slow => true,
            TensorGroup::Content | TensorGroup::Neighbours => false,
        }
    }
}

/// Why a spec was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model spec field {field} is {actual}, expected {expected}")]
pub struct SpecError {
    /// Field name.
    pub field: &'static str,
    /// Its value.
    pub actual: String,
    /// What is allowed.
    pub expected: &'static str,
}

/// Number of buckets of the logarithmic time-gap feature; see [`gap_bucket`].
pub const NUM_GAP_BUCKETS: usize = 24;

/// Weight of taste in the score, one number.
pub const TASTE_WEIGHT: &str = "taste.weight";

/// Most items in one model.
pub const NUM_ITEMS_MAX: usize = 1 << 20;

/// Bucket of a time gap: 0 for a gap under a second, else `1 + floor(log2(secs))`, saturated.
#[must_use]
pub fn gap_bucket(gap_millis: i64) -> usize {
    let secs = gap_millis.max(0) / 1000;
    let bits = (i64::BITS - secs.leading_zeros()) as usize; // at most 64, fits
    bits.min(NUM_GAP_BUCKETS - 1)
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            text_dim: 384,
            feature_dim: 0,
            history_len: 50,
            num_layers: 1,
            num_heads: 2,
            ff_dim: 128,
            half_lives_secs: vec![86_400, 7 * 86_400, 30 * 86_400],
            num_neighbours: 0,
            adapter_dim: 0,
            has_taste_weight: false,
            id_code_bits: eight_bits(),
            text_code_bits: eight_bits(),
            matrix_code_bits: eight_bits(),
        }
    }
}

impl ModelSpec {
    /// Checks every size, so that a spec from outside cannot ask for absurd memory.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn check(&self) -> Result<(), SpecError> {
        let bounded = [
            ("embedding_dim", self.embedding_dim, 4, 512, "4 to 512"),
            ("text_dim", self.text_dim, 0, 2048, "0 to 2048"),
            ("feature_dim", self.feature_dim, 0, 2048, "0 to 2048"),
            ("history_len", self.history_len, 1, 512, "1 to 512"),
            ("num_layers", self.num_layers, 1, 12, "1 to 12"),
            ("num_heads", self.num_heads, 1, 16, "1 to 16"),
            ("ff_dim", self.ff_dim, 4, 4096, "4 to 4096"),
            ("num_neighbours", self.num_neighbours, 0, 256, "0 to 256"),
            ("adapter_dim", self.adapter_dim, 0, 256, "0 to 256"),
        ];
        for (field, actual) in [
            ("id_code_bits", self.id_code_bits),
            ("text_code_bits", self.text_code_bits),
            ("matrix_code_bits", self.matrix_code_bits),
        ] {
            if ![4, 8].contains(&actual) {
                return Err(SpecError {
                    field,
                    actual: actual.to_string(),
                    expected: "4 or 8",
                });
            }
        }
        for (field, actual, min, max, expected) in bounded {
            if actual < min || actual > max {
                return Err(SpecError {
                    field,
                    actual: actual.to_string(),
                    expected,
                });
            }
        }
        if !self.embedding_dim.is_multiple_of(self.num_heads) {
            let actual = self.num_heads.to_string();
            return Err(SpecError {
                field: "num_heads",
                actual,
                expected: "a divisor of embedding_dim",
            });
        }
        let ascending = self
            .half_lives_secs
            .windows(2)
            .all(|pair| pair[0] < pair[1]);
        let num_half_lives = self.half_lives_secs.len();
        if !(1..=8).contains(&num_half_lives) || !ascending || self.half_lives_secs[0] < 60 {
            let actual = format!("{:?}", self.half_lives_secs);
            let expected = "1 to 8 ascending values of at least 60";
            return Err(SpecError {
                field: "half_lives_secs",
                actual,
                expected,
            });
        }
        Ok(())
    }

    /// Hash of the canonical JSON of the spec.
    #[must_use]
    pub fn spec_hash(&self) -> BlobId {
        BlobId::of(&serde_json::to_vec(self).expect("a struct of numbers always serializes"))
    }

    /// All tensors of a model with `num_items` items, in the canonical order of hash and wire.
    #[must_use]
    pub fn tensor_shapes(&self, num_items: usize) -> Vec<TensorShape> {
        let dim = self.embedding_dim as usize;
        let ff_dim = self.ff_dim as usize;
        let num_half_lives = self.half_lives_secs.len();
        let mut shapes = Shapes {
            num_items,
            list: Vec::new(),
        };

        shapes.item("item.id_rows", dim, self.id_code_bits, TensorGroup::Fast);
        shapes.item("item.bias", 1, 8, TensorGroup::Fast);
        shapes.item("item.counts", num_half_lives, 16, TensorGroup::Fast);
        shapes.shared("prior.weights", 1, num_half_lives, 16, TensorGroup::Fast);

        if self.has_taste_weight {
            shapes.shared(TASTE_WEIGHT, 1, 1, 16, TensorGroup::Fast);
        }
        if self.num_neighbours > 0 {
            let num_slots = self.num_neighbours as usize;
            shapes.shared("neighbour.weight", 1, 1, 16, TensorGroup::Fast);
            shapes.item(NEIGHBOURS_TENSOR, num_slots, 16, TensorGroup::Neighbours);
            shapes.item(
                NEIGHBOUR_WEIGHTS_TENSOR,
                num_slots,
                8,
                TensorGroup::Neighbours,
            );
        }

        let (text_dim, text_bits) = (self.text_dim as usize, self.text_code_bits);
        shapes.item("item.text", text_dim, text_bits, TensorGroup::Content);
        shapes.item(
            "item.features",
            self.feature_dim as usize,
            8,
            TensorGroup::Content,
        );

        let bits = self.matrix_code_bits;
        shapes.slow("text.projection", text_dim, dim, bits);
        shapes.slow("feature.projection", self.feature_dim as usize, dim, bits);
        shapes.slow("start", 1, dim, bits);
        shapes.slow("kind.embedding", EventKind::ALL.len(), dim, bits);
        shapes.slow("gap.embedding", NUM_GAP_BUCKETS, dim, bits);
        shapes.slow(
            "position.embedding",
            self.history_len as usize + 1,
            dim,
            bits,
        );
        for layer in 0..self.num_layers {
            shapes.slow(&format!("layers.{layer}.norm_1"), 2, dim, 16);
            shapes.slow(&format!("layers.{layer}.query"), dim, dim, bits);
            shapes.slow(&format!("layers.{layer}.key"), dim, dim, bits);
            shapes.slow(&format!("layers.{layer}.value"), dim, dim, bits);
            shapes.slow(&format!("layers.{layer}.output"), dim, dim, bits);
            shapes.slow(&format!("layers.{layer}.attention_bias"), 4, dim, 16);
            shapes.slow(&format!("layers.{layer}.norm_2"), 2, dim, 16);
            shapes.slow(&format!("layers.{layer}.ff_in"), dim, ff_dim, bits);
            shapes.slow(&format!("layers.{layer}.ff_in_bias"), 1, ff_dim, 16);
            shapes.slow(&format!("layers.{layer}.ff_out"), ff_dim, dim, bits);
            shapes.slow(&format!("layers.{layer}.ff_out_bias"), 1, dim, 16);
        }
        shapes.slow("final_norm", 2, dim, 16);
        shapes.slow("head.click", 1, dim + 2, 16);
        shapes.slow("head.rating", 1, dim + 1, 16);
        let adapter_dim = self.adapter_dim as usize;
        let num_adapters = if adapter_dim == 0 { 0 } else { self.num_layers };
        for layer in 0..num_adapters {
            shapes.slow(&format!("adapters.{layer}.down"), dim, adapter_dim, bits);
            shapes.slow(&format!("adapters.{layer}.down_bias"), 1, adapter_dim, 16);
            shapes.slow(&format!("adapters.{layer}.up"), adapter_dim, dim, bits);
        }
        shapes.list
    }

    /// Index of a tensor in [`Self::tensor_shapes`].
    #[must_use]
    pub fn tensor_idx(&self, name: &str) -> Option<usize> {
        self.tensor_shapes(0)
            .iter()
            .position(|shape| shape.name == name)
    }
}

struct Shapes {
    num_items: usize,
    list: Vec<TensorShape>,
}

impl Shapes {
    fn item(&mut self, name: &str, num_cols: usize, code_bits: u8, group: TensorGroup) {
        let (name, num_rows) = (name.to_owned(), self.num_items);
        self.list.push(TensorShape {
            name,
            num_rows,
            num_cols,
            code_bits,
            group,
            per_item: true,
        });
    }

    fn slow(&mut self, name: &str, num_rows: usize, num_cols: usize, code_bits: u8) {
        self.shared(name, num_rows, num_cols, code_bits, TensorGroup::Slow);
    }

    fn shared(
        &mut self,
        name: &str,
        num_rows: usize,
        num_cols: usize,
        code_bits: u8,
        group: TensorGroup,
    ) {
        let name = name.to_owned();
        self.list.push(TensorShape {
            name,
            num_rows,
            num_cols,
            code_bits,
            group,
            per_item: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_spec_is_valid_and_bad_fields_are_named() {
        assert_eq!(ModelSpec::default().check(), Ok(()));
        let spec = ModelSpec {
            num_heads: 3,
            ..ModelSpec::default()
        };
        assert_eq!(spec.check().map_err(|error| error.field), Err("num_heads"));
        let spec = ModelSpec {
            embedding_dim: 1 << 20,
            ..ModelSpec::default()
        };
        assert_eq!(
            spec.check().map_err(|error| error.field),
            Err("embedding_dim")
        );
    }

    #[test]
    fn gap_buckets_are_monotone_and_bounded() {
        assert_eq!(gap_bucket(-5), 0);
        assert_eq!(gap_bucket(999), 0);
        assert_eq!(gap_bucket(1000), 1);
        assert_eq!(gap_bucket(i64::MAX), NUM_GAP_BUCKETS - 1);
    }
}
