//! The pretrained encoder put together: tokens in batches through the network, rows back in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::batch::{BatchLimits, TokenBatch, TokenizedText, plan_batches};
use super::bert::{BertModel, mean_pool};
use super::config::BertConfig;
use super::low_rank::LowRankChange;
use super::parameters::{NamedTensor, by_name, load};
use super::tokenizer::TextTokenizer;
use super::{TextError, device_error};
use crate::ids::BlobId;

/// Values hashed at a time when weights are fingerprinted: large enough for BLAKE3's wide kernels.
const HASH_CHUNK_LEN: usize = 32 << 10;

/// Names the hash of weights and change together.
const CHANGED_DOMAIN: &[u8] = b"freshet changed text encoder 1";

/// Network with weights on a device.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    config: BertConfig,
    /// As it was loaded; shares with `model` what no change touches.
    base: BertModel,
    /// What embeds: the base, or the base with a change merged into it.
    model: BertModel,
    change: Option<LowRankChange>,
    device: Device,
    limits: BatchLimits,
    /// Of config and weights as loaded.
    base_fingerprint: BlobId,
}

impl TextEncoder {
    /// Builds the network of `config` on `device` from the tensors of a weights file.
    ///
    /// # Errors
    /// A size of the config is out of bounds; a tensor is missing, unexpected, there twice, not
    /// finite or of another shape: the error names it.
    pub fn from_named(
        config: BertConfig,
        tensors: Vec<NamedTensor>,
        device: &Device,
    ) -> Result<Self, TextError> {
        config.check()?;
        let device = device.clone().without_autodiff();
        let tensors = by_name(tensors)?;
        let base_fingerprint = fingerprint(&config, &tensors);
        let base = load(config.init(&device), tensors)?;
        Ok(Self {
            config,
            model: base.clone(),
            base,
            change: None,
            device,
            limits: BatchLimits::EXACT,
            base_fingerprint,
        })
    }

    /// The encoder as it was loaded, with `change` and no other merged into its weights.
    ///
    /// # Errors
    /// The change belongs to a network of other sizes.
    pub fn changed_by(&self, change: LowRankChange) -> Result<Self, TextError> {
        let (rank, factors) = (change.rank(), change.factors().to_vec());
        let change = LowRankChange::from_factors(&self.config, rank, factors)?;
        Ok(Self {
            model: change.merged_into(&self.base),
            change: Some(change),
            ..self.clone()
        })
    }

    /// The encoder without its change.
    #[must_use]
    pub fn as_loaded(&self) -> Self {
        Self {
            model: self.base.clone(),
            change: None,
            ..self.clone()
        }
    }

    /// The change that is merged into the weights; `None` where they are as loaded.
    #[must_use]
    pub fn change(&self) -> Option<&LowRankChange> {
        self.change.as_ref()
    }

    /// Its weights with the change merged into them, named and laid out as a weights file has them.
    ///
    /// # Errors
    /// The device failed to give a weight back.
    pub fn to_named(&self) -> Result<Vec<NamedTensor>, TextError> {
        self.model.to_named()
    }

    /// The weights as loaded with `change` beside them, which keeps gradients.
    #[cfg(feature = "train")]
    #[must_use]
    pub fn learning(&self, change: &LowRankChange) -> super::low_rank::LearningEncoder {
        let (config, base) = (&self.config, &self.base);
        super::low_rank::LearningEncoder::new(config, base, change, &self.device)
    }

    /// The same encoder with batches cut another way.
    #[must_use]
    pub fn with_batch_limits(mut self, limits: BatchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.config.hidden_size
    }

    /// Sizes of the network.
    #[must_use]
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Hash of config and weights, and of the change where there is one.
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        match &self.change {
            None => self.base_fingerprint,
            Some(change) => {
                let parts = [self.base_fingerprint.0, change.fingerprint().0].concat();
                BlobId::of(&[CHANGED_DOMAIN, &parts].concat())
            }
        }
    }

    /// Hash of config and weights as loaded.
    #[must_use]
    pub fn base_fingerprint(&self) -> BlobId {
        self.base_fingerprint
    }

    /// Embeddings of token sequences, as unit vectors in the order given.
    /// Blocks until the device has computed them, so not for WebGPU in a page.
    ///
    /// # Shapes
    /// → `[texts.len(), dim]`, row-major.
    ///
    /// # Errors
    /// A sequence is too long, a token unknown, the device failed, or an embedding is not finite.
    pub fn encode(&self, texts: &[TokenizedText]) -> Result<Vec<f32>, TextError> {
        check_tokens(texts, &self.config)?;
        let mut rows = EmbeddingRows::new(texts.len(), self.dim());
        for batch in self.plan(texts) {
            let embeddings = forward(&self.model, &batch, &self.device);
            let embeddings = embeddings.try_into_data().map_err(device_error)?;
            rows.put(&batch, embeddings)?;
        }
        Ok(rows.values)
    }

    /// Hidden states of the last layer, whose mean [`Self::encode`] takes. Blocks.
    ///
    /// # Shapes
    /// → of each text `[len, dim]`, row-major.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn hidden_states(&self, texts: &[TokenizedText]) -> Result<Vec<Vec<f32>>, TextError> {
        check_tokens(texts, &self.config)?;
        let mut states = vec![Vec::new(); texts.len()];
        for batch in self.plan(texts) {
            let (hidden, _) = hidden_states(&self.model, &batch, &self.device);
            let hidden = hidden.try_into_data().map_err(device_error)?;
            let hidden = hidden.try_into_vec::<f32>().map_err(device_error)?;
            let rows = hidden.chunks_exact(batch.padded_len * self.dim());
            for ((row, len), &text_idx) in rows.zip(&batch.lens).zip(&batch.text_idxs) {
                let row = &row[..len * self.dim()];
                if row.iter().any(|value| !value.is_finite()) {
                    return Err(TextError::EmbeddingNotFinite { text_idx });
                }
                states[text_idx] = row.to_vec();
            }
        }
        Ok(states)
    }

    /// The network with the change merged into it.
    #[must_use]
    pub fn network(&self) -> &BertModel {
        &self.model
    }

    /// [`Self::encode`] for devices that can only be read back asynchronously.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub async fn encode_async(&self, texts: &[TokenizedText]) -> Result<Vec<f32>, TextError> {
        check_tokens(texts, &self.config)?;
        let mut rows = EmbeddingRows::new(texts.len(), self.dim());
        for batch in self.plan(texts) {
            let embeddings = forward(&self.model, &batch, &self.device)
                .into_data_async()
                .await
                .map_err(device_error)?;
            rows.put(&batch, embeddings)?;
        }
        Ok(rows.values)
    }

    fn plan(&self, texts: &[TokenizedText]) -> Vec<TokenBatch> {
        plan_batches(texts, self.limits, self.config.max_position_embeddings)
    }
}

/// Embeddings of a batch by a network whose weights are on `device`.
///
/// # Shapes
/// → `[batch.text_idxs.len(), dim]`.
pub(super) fn forward(model: &BertModel, batch: &TokenBatch, device: &Device) -> Tensor<2> {
    let (hidden, mask) = hidden_states(model, batch, device);
    mean_pool(hidden, mask)
}

/// Hidden states of a batch, and its mask where it is padded.
fn hidden_states(
    model: &BertModel,
    batch: &TokenBatch,
    device: &Device,
) -> (Tensor<3>, Option<Tensor<2>>) {
    let dims = [batch.text_idxs.len(), batch.padded_len];
    let token_ids = TensorData::new(batch.token_ids.clone(), dims);
    let token_ids = Tensor::<2, Int>::from_data(token_ids, device);
    let mask = batch
        .is_padded()
        .then(|| TensorData::new(batch.mask(), dims));
    let mask = mask.map(|mask| Tensor::<2>::from_data(mask, device));
    (model.forward(token_ids, mask.clone()), mask)
}

/// Checks every sequence against the network before a device sees it.
pub(super) fn check_tokens(texts: &[TokenizedText], config: &BertConfig) -> Result<(), TextError> {
    let (vocab_size, len_max) = (config.vocab_size, config.max_position_embeddings);
    for text in texts {
        let actual = text.token_ids.len();
        if !(1..=len_max).contains(&actual) {
            return Err(TextError::SequenceLen { actual, len_max });
        }
        let unknown = text.token_ids.iter().find(|&&id| id as usize >= vocab_size); // fits: usize has at least 32 bits here
        if let Some(&token_id) = unknown {
            return Err(TextError::TokenUnknown {
                token_id,
                vocab_size,
            });
        }
    }
    Ok(())
}

/// Network and tokenizer.
#[derive(Debug, Clone)]
pub struct BertTextEncoder {
    tokenizer: Arc<TextTokenizer>,
    encoder: TextEncoder,
}

impl BertTextEncoder {
    /// Puts a tokenizer before a network.
    ///
    /// # Errors
    /// The tokenizer knows more tokens, or gives longer sequences, than the network takes.
    pub fn new(tokenizer: TextTokenizer, encoder: TextEncoder) -> Result<Self, TextError> {
        let config = encoder.config();
        let (vocab_size, actual) = (config.vocab_size, tokenizer.vocab_size());
        if actual > vocab_size {
            return Err(TextError::VocabularyMismatch { actual, vocab_size });
        }
        let (len_max, actual) = (config.max_position_embeddings, tokenizer.len_max());
        if actual > len_max {
            return Err(TextError::SequenceLen { actual, len_max });
        }
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            encoder,
        })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The network.
    #[must_use]
    pub fn encoder(&self) -> &TextEncoder {
        &self.encoder
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.encoder.dim()
    }

    /// See [`TextEncoder::as_loaded`].
    #[must_use]
    pub fn as_loaded(&self) -> Self {
        Self {
            tokenizer: Arc::clone(&self.tokenizer),
            encoder: self.encoder.as_loaded(),
        }
    }

    /// See [`TextEncoder::changed_by`].
    ///
    /// # Errors
    /// The change belongs to a network of other sizes.
    pub fn changed_by(&self, change: LowRankChange) -> Result<Self, TextError> {
        Ok(Self {
            tokenizer: Arc::clone(&self.tokenizer),
            encoder: self.encoder.changed_by(change)?,
        })
    }

    /// Hash of config, weights, change and tokenizer.
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        self.with_tokenizer(self.encoder.fingerprint())
    }

    /// Hash of config, weights as loaded and tokenizer.
    #[must_use]
    pub fn base_fingerprint(&self) -> BlobId {
        self.with_tokenizer(self.encoder.base_fingerprint())
    }

    fn with_tokenizer(&self, encoder: BlobId) -> BlobId {
        BlobId::of(&[encoder.0, self.tokenizer.fingerprint().0].concat())
    }

    /// See [`super::AnyTextEncoder::embed`].
    ///
    /// # Errors
    /// The tokenizer or the device failed, or an embedding is not finite.
    pub fn embed(&self, texts: &[String]) -> Result<Vec<f32>, TextError> {
        self.encoder.encode(&self.tokenize(texts)?)
    }

    /// See [`super::AnyTextEncoder::embed_async`].
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub async fn embed_async(&self, texts: &[String]) -> Result<Vec<f32>, TextError> {
        self.encoder.encode_async(&self.tokenize(texts)?).await
    }

    /// Texts as the network takes them.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokenize(&self, texts: &[String]) -> Result<Vec<TokenizedText>, TextError> {
        texts
            .iter()
            .map(|text| self.tokenizer.tokenize(text))
            .collect()
    }
}

/// The result while batches come in out of order.
struct EmbeddingRows {
    values: Vec<f32>,
    dim: usize,
}

impl EmbeddingRows {
    fn new(num_texts: usize, dim: usize) -> Self {
        Self {
            values: vec![0.0; num_texts * dim],
            dim,
        }
    }

    fn put(&mut self, batch: &TokenBatch, embeddings: TensorData) -> Result<(), TextError> {
        let embeddings = embeddings.try_into_vec::<f32>().map_err(device_error)?;
        for (row, &text_idx) in embeddings.chunks_exact(self.dim).zip(&batch.text_idxs) {
            if row.iter().any(|value| !value.is_finite()) {
                return Err(TextError::EmbeddingNotFinite { text_idx });
            }
            self.values[text_idx * self.dim..(text_idx + 1) * self.dim].copy_from_slice(row);
        }
        Ok(())
    }
}

fn fingerprint(config: &BertConfig, tensors: &BTreeMap<String, NamedTensor>) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(
        &serde_json::to_vec(config).expect("a struct of numbers and texts always serializes"),
    );
    let mut bytes = Vec::with_capacity(HASH_CHUNK_LEN * size_of::<f32>());
    for (name, tensor) in tensors {
        hasher.update(format!("\n{name} {:?}\n", tensor.shape).as_bytes());
        for chunk in tensor.values.chunks(HASH_CHUNK_LEN) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
        }
    }
    BlobId(*hasher.finalize().as_bytes())
}
