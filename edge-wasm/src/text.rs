//! The text encoder for the page, in a module of its own: weights in, embeddings out.
//!
//! The script hands over the tensors of a weights file one by one, so that the file is in memory once.
//! Not here: the tokenizer, which comes with `search`.

use shared_model::text::host::HostTextEncoder;
use shared_model::text::{BertConfig, NamedTensor, TokenizedText};
use wasm_bindgen::prelude::*;

use crate::error::ShellError;

/// Collects the tensors of an encoder.
#[wasm_bindgen]
pub struct EncoderBuilder {
    config: BertConfig,
    tensors: Vec<NamedTensor>,
}

/// An encoder with quantized weights.
#[wasm_bindgen]
pub struct Encoder {
    inner: HostTextEncoder,
}

#[wasm_bindgen]
impl EncoderBuilder {
    /// Begins with the encoder's `config.json`.
    ///
    /// # Errors
    /// It is no config of a supported encoder.
    #[wasm_bindgen(constructor)]
    pub fn new(config: &[u8]) -> Result<EncoderBuilder, ShellError> {
        let config =
            BertConfig::from_json(config).map_err(|error| ShellError::argument("config", error))?;
        Ok(Self {
            config,
            tensors: Vec::new(),
        })
    }

    /// Takes one tensor: row-major, named as in the weights file.
    pub fn add(&mut self, name: String, shape: Vec<u32>, values: Vec<f32>) {
        let shape = shape.into_iter().map(|size| size as usize).collect(); // usize has 32 bits here
        self.tensors.push(NamedTensor {
            name,
            shape,
            values,
        });
    }

    /// Quantizes what was collected.
    ///
    /// # Errors
    /// A tensor is missing, unexpected, there twice, not finite or of another shape.
    pub fn build(self) -> Result<Encoder, ShellError> {
        let inner = HostTextEncoder::from_named(self.config, self.tensors);
        let inner = inner.map_err(|error| ShellError::argument("tensors", error))?;
        Ok(Encoder { inner })
    }
}

#[wasm_bindgen]
impl Encoder {
    /// Embedding of one text, a unit vector.
    ///
    /// # Errors
    /// The sequence is empty or too long, or a token is unknown.
    pub fn encode(&self, token_ids: Vec<u32>) -> Result<Vec<f32>, ShellError> {
        let embedding = self.inner.encode(&[TokenizedText { token_ids }]);
        embedding.map_err(|error| ShellError::argument("token_ids", error))
    }
}
