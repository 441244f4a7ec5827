//! The parts of an encoder: what it is made of, wherever they came from.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use shared_model::text::packed::{PackedTensor, layout};
use shared_model::text::parameters::is_unused;
use shared_model::text::{
    BertConfig, BertTextEncoder, NamedTensor, PackedEncoder, TextEncoder, TextError, TextTokenizer,
    TokenizedText,
};

use super::TOKEN_TYPES;
use crate::text_source::{TextSourceError, read_encoder_files};

/// An encoder to be packed, or made smaller first.
#[derive(Debug, Clone)]
pub struct PackSource {
    /// Sizes of the network.
    pub config: BertConfig,
    /// `tokenizer.json` as it is.
    pub tokenizer_json: Vec<u8>,
    /// Weights, named and laid out as a weights file has them.
    pub tensors: Vec<NamedTensor>,
    /// Tokens read of a text.
    pub len_max: usize,
}

impl PackSource {
    /// The encoder of a folder, as `text_source` lays it out.
    ///
    /// # Errors
    /// A file is missing or not sound; the error names it.
    pub fn read(dir: &Path, len_max: usize) -> Result<Self, TextSourceError> {
        let files = read_encoder_files(dir, |name| !is_unused(name))?;
        let unusable = |source| TextSourceError::Unusable {
            dir: dir.to_owned(),
            source,
        };
        Ok(Self {
            config: BertConfig::from_json(&files.config_json).map_err(unusable)?,
            tokenizer_json: files.tokenizer_json,
            tensors: files.tensors,
            len_max,
        })
    }

    /// The parts of a packed file, weights as its codes say. Positions hold token type 0 there.
    #[must_use]
    pub fn of_packed(packed: PackedEncoder) -> Self {
        let PackedEncoder {
            config,
            tokenizer_json,
            tensors,
        } = packed;
        let shapes: BTreeMap<String, Vec<usize>> = layout(&config)
            .into_iter()
            .map(|(name, kind)| (name, kind.shape()))
            .collect();
        let mut named: Vec<NamedTensor> = tensors
            .into_iter()
            .map(|(name, tensor)| NamedTensor {
                shape: shapes.get(&name).cloned().unwrap_or_default(), // whoever reads a file holds it to the layout
                values: match tensor {
                    PackedTensor::Matrix(matrix) => matrix.values(),
                    PackedTensor::Vector(values) => values,
                },
                name,
            })
            .collect();
        named.push(no_token_types(&config));
        Self {
            len_max: config.max_position_embeddings,
            config,
            tokenizer_json,
            tensors: named,
        }
    }

    /// Texts as the network takes them.
    ///
    /// # Errors
    /// The tokenizer is not sound.
    pub fn tokens(&self, texts: &[String]) -> Result<Vec<TokenizedText>, TextError> {
        let tokenizer = TextTokenizer::from_bytes(&self.tokenizer_json, self.len_max)?;
        texts.iter().map(|text| tokenizer.tokenize(text)).collect()
    }

    /// Network and tokenizer in f32.
    ///
    /// # Errors
    /// They are not sound, or do not belong together.
    pub fn encoder(&self, device: &Device) -> Result<BertTextEncoder, TextError> {
        let tokenizer = TextTokenizer::from_bytes(&self.tokenizer_json, self.len_max)?;
        let (config, tensors) = (self.config.clone(), self.tensors.clone());
        BertTextEncoder::new(tokenizer, TextEncoder::from_named(config, tensors, device)?)
    }
}

/// Token types of a network whose positions hold them.
pub(super) fn no_token_types(config: &BertConfig) -> NamedTensor {
    let shape = vec![config.type_vocab_size, config.hidden_size];
    NamedTensor {
        name: TOKEN_TYPES.to_owned(),
        values: vec![0.0; shape.iter().product()],
        shape,
    }
}
