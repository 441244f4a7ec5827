//! What an encoder has learned since a packed file was made of it, as a page downloads it beside that file.
//!
//! ```text
//! change : "FTXC" version u8 · hash of the packed file [32] · rank u8 · sections
//! ```
//! A section is a factor as `matrix` writes it, with one step, in the order of [`LowRankChange::factors`]: some tens of
//! kilobytes beside a file of megabytes. Merged into the codes of the file, matrices get steps as fine as codes allow.

use super::matrix::{CODE_MAX, CodedMatrix, damaged};
use super::{PackedEncoder, PackedTensor, put_section, section, take};
use crate::ids::BlobId;
use crate::manifest::TEXT_CHANGE_BYTES_MAX;
use crate::text::low_rank::{LowRankChange, RANK_MAX, factor_shapes};
use crate::text::{BertConfig, NamedTensor, TextError};

const MAGIC: &[u8; 4] = b"FTXC";
const FORMAT_VERSION: u8 = 1;
const HASH_BYTES: usize = 32;

impl LowRankChange {
    /// Writes it for whoever has the packed file `base`; factors are rounded to 8 bits.
    #[must_use]
    pub fn to_packed_bytes(&self, base: BlobId) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT_VERSION);
        bytes.extend(base.0);
        bytes.push(self.rank() as u8); // at most RANK_MAX
        for factor in self.factors() {
            let (num_rows, num_cols) = (factor.shape[0], factor.shape[1]);
            let steps = finest_steps(&factor.values, num_cols, &vec![0; num_rows], 1);
            let coded = CodedMatrix::nearest(&factor.values, num_cols, steps, vec![0; num_rows]);
            put_section(&mut bytes, &coded.encode());
        }
        bytes
    }

    /// Hash of the packed file that these bytes are a change of; nothing where they are no change.
    #[must_use]
    pub fn packed_base(bytes: &[u8]) -> Option<BlobId> {
        let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT_VERSION])?;
        rest.first_chunk::<HASH_BYTES>().map(|hash| BlobId(*hash))
    }

    /// Reads a change of the packed file `base`, which has the sizes of `config`.
    ///
    /// # Errors
    /// It is damaged, of another format version, or of another file.
    pub fn from_packed_bytes(
        bytes: &[u8],
        base: BlobId,
        config: &BertConfig,
    ) -> Result<Self, TextError> {
        if bytes.len() as u64 > TEXT_CHANGE_BYTES_MAX {
            return Err(damaged("a change that is too large"));
        }
        let mut next = 0;
        if take(bytes, &mut next, MAGIC.len())? != MAGIC {
            return Err(damaged("no change of a text encoder"));
        }
        if take(bytes, &mut next, 1)? != [FORMAT_VERSION] {
            return Err(damaged("a change of an unknown format version"));
        }
        if take(bytes, &mut next, HASH_BYTES)? != base.0 {
            return Err(damaged("a change of another file"));
        }
        let rank = usize::from(take(bytes, &mut next, 1)?[0]);
        if !(1..=RANK_MAX).contains(&rank) {
            return Err(damaged("a change of an unsupported rank"));
        }
        let mut factors = Vec::new();
        for (name, shape) in factor_shapes(config, rank) {
            let coded = CodedMatrix::decode(section(bytes, &mut next)?, shape[0], shape[1])?;
            factors.push(NamedTensor {
                name,
                shape,
                values: coded.values(),
            });
        }
        if next != bytes.len() {
            return Err(damaged("a change of another length"));
        }
        Self::from_factors(config, rank, factors)
    }
}

impl PackedEncoder {
    /// The encoder with `change` merged into its matrices.
    ///
    /// # Errors
    /// A matrix is missing, the change belongs to a network of other sizes, or it makes a weight infinite.
    pub fn changed_by(mut self, change: &LowRankChange) -> Result<Self, TextError> {
        let num_layers = self.config.num_hidden_layers;
        let names = (0..num_layers).flat_map(|layer| {
            ["query", "value"]
                .map(|part| format!("encoder.layer.{layer}.attention.self.{part}.weight"))
        });
        let (d_out, d_in) = (self.config.attention_size(), self.config.hidden_size);
        let products = change.products(&self.config)?;
        for (name, product) in names.zip(products) {
            let Some(tensor) = self.tensors.remove(&name) else {
                return Err(TextError::TensorMissing { tensor: name });
            };
            let matrix = tensor.into_matrix(&name, d_out, d_in)?;
            let mut values = matrix.values();
            for (value, moved) in values.iter_mut().zip(product) {
                *value += moved;
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(TextError::TensorNotFinite { tensor: name });
            }
            let CodedMatrix {
                row_steps, steps, ..
            } = matrix;
            let steps = finest_steps(&values, d_in, &row_steps, steps.len());
            let matrix = CodedMatrix::nearest(&values, d_in, steps, row_steps);
            self.tensors.insert(name, PackedTensor::Matrix(matrix));
        }
        Ok(self)
    }
}

/// Steps by which the largest value of each group of rows has the largest code.
fn finest_steps(values: &[f32], num_cols: usize, row_steps: &[u8], num_steps: usize) -> Vec<f32> {
    let mut steps = vec![0.0_f32; num_steps];
    for (row, step_idx) in values.chunks_exact(num_cols).zip(row_steps) {
        let step = &mut steps[usize::from(*step_idx)];
        *step = row.iter().fold(*step, |max, value| max.max(value.abs()));
    }
    for step in &mut steps {
        *step /= f32::from(CODE_MAX);
    }
    steps
}
