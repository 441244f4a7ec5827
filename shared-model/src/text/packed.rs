//! An encoder as a page downloads it: tokenizer and weights in one file, weights as codes of a few bits.
//!
//! ```text
//! file    : "FTXT" version u8 · header length u32 · header as JSON · tokenizer.json, deflated · sections
//! section : length u32 · bytes                                         all numbers little-endian
//! header  : {"config": …, "tokenizer_bytes": …, "tokenizer_deflated_bytes": …}
//! ```
//! Sections follow in the order of [`layout`]: matrices as `matrix` writes them, a long one in pieces, so that a page
//! may do something else in between; vectors as the upper halves of their f32 (bfloat16).
//! Position embeddings hold that of token type 0 too, and as many positions as tokens are read of a text
//! (`max_position_embeddings` of the header's config).
//! The config of a network without some of its heads has `attention_head_size`, which readers that do not know it take
//! for a network of other shapes, and refuse.
//! The whole file is named by its hash; who reads it has checked that.
//! `change` is what an encoder learns after its file was made.
//! Not here: how weights are rounded (the server's `text_pack`), the network (`host`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TextError;
use super::config::BertConfig;
use super::host::HostTextEncoder;
use super::tokenizer::TextTokenizer;
use crate::kernels::Form;
use crate::manifest::TEXT_ENCODER_BYTES_MAX;

mod change;
mod matrix;

use matrix::damaged;
pub use matrix::{CODE_MAX, CodedMatrix, code_at};

/// Largest file that is read, in bytes.
pub const PACKED_BYTES_MAX: usize = TEXT_ENCODER_BYTES_MAX as usize; // fits 32 bits

/// Most codes of one network: a few bytes of a section may stand for many of them, and a page has 4 GB at most.
pub const NUM_CODES_MAX: u64 = 128 << 20;

/// Largest `tokenizer.json` in it, in bytes.
pub const TOKENIZER_BYTES_MAX: usize = 16 << 20;

const MAGIC: &[u8; 4] = b"FTXT";
const FORMAT_VERSION: u8 = 1;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Rows of a section: a piece of MiniLM's word embeddings is read in some tens of milliseconds.
const SECTION_ROWS: usize = 2048;
/// As zlib counts them: close to the smallest, at a tenth of its time.
const DEFLATE_LEVEL: u8 = 9;

/// What a weight is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Codes, `[num_rows, num_cols]`.
    Matrix {
        /// Outputs, words or positions.
        num_rows: usize,
        /// Inputs, or the width of an embedding.
        num_cols: usize,
    },
    /// Numbers.
    Vector {
        /// How many.
        len: usize,
    },
}

/// A weight of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum PackedTensor {
    /// See [`TensorKind::Matrix`].
    Matrix(CodedMatrix),
    /// See [`TensorKind::Vector`].
    Vector(Vec<f32>),
}

/// Everything that embeds a text.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedEncoder {
    /// Sizes; `max_position_embeddings` is the number of tokens read of a text.
    pub config: BertConfig,
    /// `tokenizer.json` as it was.
    pub tokenizer_json: Vec<u8>,
    /// Weights by their name in [`layout`].
    pub tensors: BTreeMap<String, PackedTensor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: BertConfig,
    tokenizer_bytes: usize,
    tokenizer_deflated_bytes: usize,
}

/// Names of word and position embeddings.
pub const WORDS: &str = "embeddings.word_embeddings.weight";
/// See [`WORDS`].
pub const POSITIONS: &str = "embeddings.position_embeddings.weight";

/// The weights of a network of these sizes, named as in a weights file, in the order of the file.
#[must_use]
pub fn layout(config: &BertConfig) -> Vec<(String, TensorKind)> {
    let (dim, inner_dim) = (config.hidden_size, config.intermediate_size);
    let attention_size = config.attention_size();
    let matrix = |num_rows, num_cols| TensorKind::Matrix { num_rows, num_cols };
    let mut tensors = vec![
        (WORDS.to_owned(), matrix(config.vocab_size, dim)),
        (
            POSITIONS.to_owned(),
            matrix(config.max_position_embeddings, dim),
        ),
    ];
    let norm = |name: String| {
        ["weight", "bias"].map(|part| (format!("{name}.{part}"), TensorKind::Vector { len: dim }))
    };
    tensors.extend(norm("embeddings.LayerNorm".to_owned()));
    for layer in 0..config.num_hidden_layers {
        let linears = [
            ("attention.self.query", attention_size, dim),
            ("attention.self.key", attention_size, dim),
            ("attention.self.value", attention_size, dim),
            ("attention.output.dense", dim, attention_size),
            ("intermediate.dense", inner_dim, dim),
            ("output.dense", dim, inner_dim),
        ];
        for (part, d_out, d_in) in linears {
            let name = format!("encoder.layer.{layer}.{part}");
            tensors.push((format!("{name}.weight"), matrix(d_out, d_in)));
            tensors.push((format!("{name}.bias"), TensorKind::Vector { len: d_out }));
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            tensors.extend(norm(format!("encoder.layer.{layer}.{part}")));
        }
    }
    tensors
}

/// Bounds the memory that all weights together take, before any is read.
///
/// # Errors
/// [`TextError::TooManyCodes`].
pub fn check_num_codes(config: &BertConfig) -> Result<(), TextError> {
    let num_codes = layout(config).into_iter().map(|(_, kind)| match kind {
        TensorKind::Matrix { num_rows, num_cols } => num_rows as u64 * num_cols as u64, // widening
        TensorKind::Vector { .. } => 0,
    });
    let num_codes: u64 = num_codes.sum();
    if num_codes > NUM_CODES_MAX {
        return Err(TextError::TooManyCodes { num_codes });
    }
    Ok(())
}

impl PackedEncoder {
    /// Writes the file.
    ///
    /// # Errors
    /// A weight is missing, unexpected or of another shape, or there is too much of weights or tokenizer.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TextError> {
        check_num_codes(&self.config)?;
        if self.tokenizer_json.len() > TOKENIZER_BYTES_MAX {
            return Err(damaged("a tokenizer that is too large"));
        }
        let tokenizer = miniz_oxide::deflate::compress_to_vec(&self.tokenizer_json, DEFLATE_LEVEL);
        let header = Header {
            config: self.config.clone(),
            tokenizer_bytes: self.tokenizer_json.len(),
            tokenizer_deflated_bytes: tokenizer.len(),
        };
        let header = serde_json::to_vec(&header).expect("plain fields always serialize");
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT_VERSION);
        put_section(&mut bytes, &header);
        bytes.extend(tokenizer);
        let mut left: BTreeMap<&str, &PackedTensor> = BTreeMap::new();
        left.extend(
            self.tensors
                .iter()
                .map(|(name, tensor)| (name.as_str(), tensor)),
        );
        for (name, kind) in layout(&self.config) {
            let tensor = left.remove(name.as_str());
            let tensor = tensor.ok_or_else(|| TextError::TensorMissing {
                tensor: name.clone(),
            })?;
            if tensor.shape() != kind.shape() {
                return Err(shape_mismatch(&name, kind.shape(), tensor.shape()));
            }
            match tensor {
                PackedTensor::Matrix(matrix) => {
                    let num_rows = matrix.row_steps.len();
                    for first in (0..num_rows).step_by(SECTION_ROWS) {
                        let rows = matrix.rows(first..num_rows.min(first + SECTION_ROWS));
                        put_section(&mut bytes, &rows.encode());
                    }
                }
                PackedTensor::Vector(values) => {
                    let halves = values
                        .iter()
                        .flat_map(|value| upper_half(*value).to_le_bytes());
                    put_section(&mut bytes, &halves.collect::<Vec<u8>>());
                }
            }
        }
        match left.into_keys().next() {
            Some(tensor) => Err(TextError::TensorUnexpected {
                tensor: tensor.to_owned(),
            }),
            None => Ok(bytes),
        }
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`PackedReader`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, TextError> {
        let mut reader = PackedReader::new(bytes)?;
        while reader.read_next()? {}
        reader.finish()
    }

    /// Tokenizer and network, ready to embed.
    ///
    /// # Errors
    /// The tokenizer does not parse or knows more tokens than the network, or a weight is missing or of another shape.
    pub fn open(self) -> Result<(TextTokenizer, HostTextEncoder), TextError> {
        let len_max = self.config.max_position_embeddings;
        let tokenizer = TextTokenizer::from_bytes(&self.tokenizer_json, len_max)?;
        let vocab_size = self.config.vocab_size;
        if tokenizer.vocab_size() > vocab_size {
            return Err(TextError::VocabularyMismatch {
                actual: tokenizer.vocab_size(),
                vocab_size,
            });
        }
        let encoder = HostTextEncoder::from_packed(Form::OF_TARGET, self.config, self.tensors)?;
        Ok((tokenizer, encoder))
    }
}

/// Reads a file piece by piece.
#[derive(Debug)]
pub struct PackedReader {
    bytes: Vec<u8>,
    next: usize,
    encoder: PackedEncoder,
    /// What is still to be read, last first.
    left: Vec<(String, TensorKind)>,
}

impl PackedReader {
    /// Reads header and tokenizer.
    ///
    /// # Errors
    /// They are damaged, of another format version, or out of bounds.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TextError> {
        if bytes.len() > PACKED_BYTES_MAX {
            return Err(damaged("a file that is too large"));
        }
        if bytes.get(..4) != Some(MAGIC) {
            return Err(damaged("no text encoder"));
        }
        if bytes.get(4) != Some(&FORMAT_VERSION) {
            return Err(damaged("an unknown format version"));
        }
        let mut next = 5;
        let header = section(&bytes, &mut next)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(damaged("a header that is too long"));
        }
        let header: Header =
            serde_json::from_slice(header).map_err(|error| damaged(&format!("header: {error}")))?;
        header.config.check()?;
        check_num_codes(&header.config)?;
        if header.tokenizer_bytes > TOKENIZER_BYTES_MAX {
            return Err(damaged("a tokenizer that is too large"));
        }
        let deflated = take(&bytes, &mut next, header.tokenizer_deflated_bytes)?;
        let tokenizer_json =
            miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, header.tokenizer_bytes);
        let tokenizer_json =
            tokenizer_json.map_err(|error| damaged(&format!("tokenizer: {error}")))?;
        if tokenizer_json.len() != header.tokenizer_bytes {
            return Err(damaged("a tokenizer of another length"));
        }
        let left = layout(&header.config).into_iter().rev().collect();
        let encoder = PackedEncoder {
            config: header.config,
            tokenizer_json,
            tensors: BTreeMap::new(),
        };
        Ok(Self {
            bytes,
            next,
            encoder,
            left,
        })
    }

    /// Reads the next piece. Answers whether there was one.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read_next(&mut self) -> Result<bool, TextError> {
        let Some((name, kind)) = self.left.pop() else {
            return Ok(false);
        };
        let bytes = section(&self.bytes, &mut self.next)?;
        match kind {
            TensorKind::Matrix { num_rows, num_cols } => {
                let matrix = CodedMatrix::decode(bytes, num_rows.min(SECTION_ROWS), num_cols)?;
                self.append(&name, matrix)?;
                let num_rows = num_rows.saturating_sub(SECTION_ROWS);
                if num_rows > 0 {
                    self.left
                        .push((name, TensorKind::Matrix { num_rows, num_cols }));
                }
            }
            TensorKind::Vector { len } => {
                let (halves, rest) = bytes.as_chunks::<2>();
                if halves.len() != len || !rest.is_empty() {
                    return Err(damaged("a vector of another length"));
                }
                let value =
                    |half: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16);
                let values: Vec<f32> = halves.iter().map(value).collect();
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(TextError::TensorNotFinite { tensor: name });
                }
                self.encoder
                    .tensors
                    .insert(name, PackedTensor::Vector(values));
            }
        }
        Ok(true)
    }

    /// The encoder, once everything is read.
    ///
    /// # Errors
    /// Something is not read yet, or bytes follow.
    pub fn finish(self) -> Result<PackedEncoder, TextError> {
        if !self.left.is_empty() || self.next != self.bytes.len() {
            return Err(damaged("a file of another length"));
        }
        Ok(self.encoder)
    }

    /// Puts a piece of a matrix behind those that came before.
    fn append(&mut self, name: &str, piece: CodedMatrix) -> Result<(), TextError> {
        match self.encoder.tensors.get_mut(name) {
            Some(PackedTensor::Matrix(matrix)) if matrix.steps == piece.steps => {
                matrix.row_steps.extend(piece.row_steps);
                matrix.codes.extend(piece.codes);
                Ok(())
            }
            Some(_) => Err(damaged("pieces of a matrix with different steps")),
            None => {
                let tensor = PackedTensor::Matrix(piece);
                self.encoder.tensors.insert(name.to_owned(), tensor);
                Ok(())
            }
        }
    }
}

impl TensorKind {
    /// As the weights file has it.
    #[must_use]
    pub fn shape(self) -> Vec<usize> {
        match self {
            Self::Matrix { num_rows, num_cols } => vec![num_rows, num_cols],
            Self::Vector { len } => vec![len],
        }
    }
}

impl PackedTensor {
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Vector(values) => vec![values.len()],
            Self::Matrix(matrix) => matrix.shape(),
        }
    }

    /// # Errors
    /// It is no matrix of this shape.
    pub(super) fn into_matrix(
        self,
        name: &str,
        num_rows: usize,
        num_cols: usize,
    ) -> Result<CodedMatrix, TextError> {
        match self {
            Self::Matrix(matrix) if matrix.shape() == [num_rows, num_cols] => Ok(matrix),
            other => Err(shape_mismatch(
                name,
                vec![num_rows, num_cols],
                other.shape(),
            )),
        }
    }

    /// # Errors
    /// It is no vector of this length.
    pub(super) fn into_vector(self, name: &str, len: usize) -> Result<Vec<f32>, TextError> {
        match self {
            Self::Vector(values) if values.len() == len => Ok(values),
            other => Err(shape_mismatch(name, vec![len], other.shape())),
        }
    }
}

fn shape_mismatch(name: &str, expected: Vec<usize>, actual: Vec<usize>) -> TextError {
    TextError::ShapeMismatch {
        tensor: name.to_owned(),
        expected,
        actual,
    }
}

fn put_section(bytes: &mut Vec<u8>, section: &[u8]) {
    bytes.extend((section.len() as u32).to_le_bytes()); // sections are far below 4 GiB
    bytes.extend(section);
}

fn section<'a>(bytes: &'a [u8], next: &mut usize) -> Result<&'a [u8], TextError> {
    let len = take(bytes, next, 4)?;
    let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]);
    take(bytes, next, len as usize)
}

fn take<'a>(bytes: &'a [u8], next: &mut usize, len: usize) -> Result<&'a [u8], TextError> {
    let taken = bytes[*next..]
        .get(..len)
        .ok_or_else(|| damaged("the bytes end too early"))?;
    *next += len;
    Ok(taken)
}

/// The upper half of an f32, rounded to nearest, ties to even.
fn upper_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounding = 0x7fff + (bits >> 16 & 1);
    (bits.saturating_add(rounding) >> 16) as u16 // the upper half
}

#[cfg(test)]
mod tests;
