//! The text encoder for the page, in a module of its own: a packed file in, with or without a change, embeddings out.
//!
//! The file is read piece by piece, so that the worker may answer something else in between.
//! `EncoderBuilder` takes a weights file as it is instead, for benchmarks: it says what rounding costs.
//! Not here: fetching, and what embeddings are compared with (the engine).

use shared_model::ids::BlobId;
use shared_model::text::host::HostTextEncoder;
use shared_model::text::{
    BertConfig, LowRankChange, NamedTensor, PackedEncoder, PackedReader, SmallTextEncoder,
    TextTokenizer, TokenizedText,
};
use wasm_bindgen::prelude::*;

use crate::error::ShellError;

/// Reads a packed file.
#[wasm_bindgen]
pub struct TextReader {
    id: BlobId,
    inner: PackedReader,
}

/// Embeds texts.
#[wasm_bindgen]
pub struct TextEmbedder {
    inner: Embedder,
}

enum Embedder {
    Small(SmallTextEncoder),
    Packed(Box<(TextTokenizer, HostTextEncoder)>),
}

#[wasm_bindgen]
impl TextReader {
    /// Begins with a file whose hash is `id`, in hexadecimal.
    ///
    /// # Errors
    /// The bytes are not what `id` names, or no packed encoder of this format.
    #[wasm_bindgen(constructor)]
    pub fn new(id: &str, bytes: Vec<u8>) -> Result<TextReader, ShellError> {
        let id = checked(id, &bytes)?;
        let inner = PackedReader::new(bytes).map_err(ShellError::text)?;
        Ok(Self { id, inner })
    }

    /// Reads the next piece. Answers whether there was one.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read_next(&mut self) -> Result<bool, ShellError> {
        self.inner.read_next().map_err(ShellError::text)
    }

    /// The encoder, once everything is read.
    ///
    /// # Errors
    /// Something is missing, or tokenizer and network do not fit.
    pub fn finish(self) -> Result<TextEmbedder, ShellError> {
        let packed = self.inner.finish().and_then(PackedEncoder::open);
        Ok(TextEmbedder::packed(packed.map_err(ShellError::text)?))
    }

    /// The encoder with a change, whose hash is `id`, in hexadecimal, once everything is read.
    ///
    /// # Errors
    /// As for [`Self::finish`]; or the bytes are not what `id` names, or no change of this file.
    pub fn finish_changed(self, id: &str, bytes: Vec<u8>) -> Result<TextEmbedder, ShellError> {
        checked(id, &bytes)?;
        let packed = self.inner.finish().and_then(|packed| {
            let change = LowRankChange::from_packed_bytes(&bytes, self.id, &packed.config)?;
            packed.changed_by(&change)?.open()
        });
        Ok(TextEmbedder::packed(packed.map_err(ShellError::text)?))
    }
}

/// The hash of `bytes`, which is to be `id`, in hexadecimal.
fn checked(id: &str, bytes: &[u8]) -> Result<BlobId, ShellError> {
    let actual = BlobId::of(bytes);
    if actual.to_hex() != id {
        let reason = format!("the file has the hash {}, expected {id}", actual.to_hex());
        return Err(ShellError::text(reason));
    }
    Ok(actual)
}

impl TextEmbedder {
    fn packed(packed: (TextTokenizer, HostTextEncoder)) -> Self {
        Self {
            inner: Embedder::Packed(Box::new(packed)),
        }
    }
}

#[wasm_bindgen]
impl TextEmbedder {
    /// The encoder without a file.
    pub fn small() -> TextEmbedder {
        TextEmbedder {
            inner: Embedder::Small(SmallTextEncoder),
        }
    }

    /// Embedding of one text: a unit vector, or zeros where the small encoder finds no word.
    ///
    /// # Errors
    /// The tokenizer failed, or the embedding is not finite.
    pub fn embed(&self, text: String) -> Result<Vec<f32>, ShellError> {
        match &self.inner {
            Embedder::Small(encoder) => Ok(encoder.embed(&[text])),
            Embedder::Packed(packed) => {
                let (tokenizer, encoder) = &**packed;
                let tokens = tokenizer.tokenize(&text).map_err(ShellError::text)?;
                encoder.encode(&[tokens]).map_err(ShellError::text)
            }
        }
    }

    /// Tokens of one text as the server has them; none with the small encoder.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, ShellError> {
        match &self.inner {
            Embedder::Small(_) => Ok(Vec::new()),
            Embedder::Packed(packed) => {
                let tokens = packed.0.tokenize(text).map_err(ShellError::text)?;
                Ok(tokens.token_ids)
            }
        }
    }
}

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
