//! A network with its tokenizer: scores texts, is saved and loaded, teaches.
//!
//! A folder of it holds `model.safetensors`, `config.json` and `tokenizer.json`, names and layouts as
//! Hugging Face's BERT with the heads beside. Not here: learning (`tuner`).

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use shared_model::text::NamedTensor;
use shared_model::text::cross_encoder::{CrossEncoder, CrossEncoderConfig, PairScore};
use shared_model::text::pairs::{HashedWords, PairTokenizer, TokenizedPair};

use super::{CrossEncoderError, write_error};
use crate::text_source::{EncoderFiles, read_encoder_files};

/// Ids of the tokenizer that hashes words: with 20,000 distinct words, a third of them would share an id
/// with another at 32,768; catalogues of titles have fewer.
const HASHED_BUCKETS: u32 = 1 << 15;

/// A network that scores pairs of texts.
#[derive(Debug, Clone)]
pub struct CrossScorer {
    config: CrossEncoderConfig,
    /// On `device`, without autodiff.
    model: CrossEncoder,
    tokenizer: Arc<PairTokenizer>,
    device: Device,
}

impl CrossScorer {
    /// A pretrained encoder with fresh heads, drawn by `seed`.
    ///
    /// # Errors
    /// The files do not make a network that takes pairs of `tokens_max` tokens.
    pub fn pretrained(
        files: EncoderFiles,
        tokens_max: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self, CrossEncoderError> {
        let bert = shared_model::text::BertConfig::from_json(&files.config_json)?;
        let config = CrossEncoderConfig::pretrained(bert, tokens_max);
        config.check()?;
        let tokenizer = PairTokenizer::from_json(&files.tokenizer_json, tokens_max)?;
        device.seed(seed);
        let model = config.init_pretrained(files.tensors, device)?;
        Self::new(config, model, tokenizer, device)
    }

    /// A small network that knows nothing, drawn by `seed`; it hashes words.
    ///
    /// # Errors
    /// `tokens_max` is out of bounds.
    pub fn small(tokens_max: usize, seed: u64, device: &Device) -> Result<Self, CrossEncoderError> {
        let num_buckets = HASHED_BUCKETS;
        let tokenizer = PairTokenizer::hashed(HashedWords { num_buckets }, tokens_max)?;
        let config = CrossEncoderConfig::small(tokenizer.vocab_size(), tokens_max);
        config.check()?;
        device.seed(seed);
        let model = config.init(device);
        Self::new(config, model, tokenizer, device)
    }

    fn new(
        config: CrossEncoderConfig,
        model: CrossEncoder,
        tokenizer: PairTokenizer,
        device: &Device,
    ) -> Result<Self, CrossEncoderError> {
        let (vocab_size, actual) = (config.bert.vocab_size, tokenizer.vocab_size());
        if actual > vocab_size {
            return Err(CrossEncoderError::VocabularyMismatch { actual, vocab_size });
        }
        Ok(Self {
            config,
            model,
            tokenizer: Arc::new(tokenizer),
            device: device.clone(),
        })
    }

    /// The same tokenizer and config with other weights, as a tuner gives them.
    #[must_use]
    pub fn with_model(&self, model: CrossEncoder) -> Self {
        Self {
            model,
            ..self.clone()
        }
    }

    /// Says what ratings are made of: the center and the unit of the rating head.
    ///
    /// # Errors
    /// A value is not finite, or the scale not above 0.
    pub fn set_rating_scale(&mut self, center: f32, scale: f32) -> Result<(), CrossEncoderError> {
        let config = CrossEncoderConfig {
            rating_center: center,
            rating_scale: scale,
            ..self.config.clone()
        };
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// Sizes and constants.
    #[must_use]
    pub fn config(&self) -> &CrossEncoderConfig {
        &self.config
    }

    /// The weights.
    #[must_use]
    pub fn model(&self) -> &CrossEncoder {
        &self.model
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A pair of texts as tokens.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokenize(&self, user: &str, item: &str) -> Result<TokenizedPair, CrossEncoderError> {
        Ok(self.tokenizer.tokenize(user, item)?)
    }

    /// Scores pairs in the order given.
    ///
    /// # Errors
    /// A score is not finite, or the device failed.
    pub fn score(&self, pairs: &[TokenizedPair]) -> Result<Vec<PairScore>, CrossEncoderError> {
        Ok(self.model.score(pairs, &self.config, &self.device)?)
    }

    /// Scores the items of one user.
    ///
    /// # Errors
    /// As [`Self::score`], or the tokenizer failed.
    pub fn score_items(
        &self,
        user: &str,
        items: &[&str],
    ) -> Result<Vec<PairScore>, CrossEncoderError> {
        let pairs = items.iter().map(|item| self.tokenize(user, item));
        self.score(&pairs.collect::<Result<Vec<_>, _>>()?)
    }

    /// Teaches: probabilities over the candidates of one user, `softmax(logits / temperature)`
    /// (Hinton et al. 2015). They sum to 1; no candidates give none.
    ///
    /// # Errors
    /// The temperature is not above 0, or as [`Self::score_items`].
    pub fn soft_scores(
        &self,
        user: &str,
        candidates: &[&str],
        temperature: f32,
    ) -> Result<Vec<f32>, CrossEncoderError> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(CrossEncoderError::Option {
                field: "temperature",
                actual: temperature.to_string(),
                expected: "above 0",
            });
        }
        let scores = self.score_items(user, candidates)?;
        let logits = scores.iter().map(|score| score.click_logit / temperature);
        Ok(softmax(&logits.collect::<Vec<_>>()))
    }

    /// Writes the three files into `dir`, which is made; each is written whole or not at all, the config last.
    ///
    /// # Errors
    /// A file cannot be written, or a weight cannot be read back.
    pub fn save(&self, dir: &Path) -> Result<(), CrossEncoderError> {
        std::fs::create_dir_all(dir).map_err(write_error(dir))?;
        let tensors = self.model.to_named()?;
        let config = serde_json::to_vec_pretty(&self.config);
        let config = config.expect("a struct of numbers and texts always serializes");
        write(&dir.join("model.safetensors"), &to_safetensors(&tensors))?;
        write(&dir.join("tokenizer.json"), &self.tokenizer.to_json())?;
        write(&dir.join("config.json"), &config)
    }

    /// Reads what [`Self::save`] wrote, bit for bit.
    ///
    /// # Errors
    /// A file is missing, too large or damaged, or they do not belong together.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, CrossEncoderError> {
        let files = read_encoder_files(dir, |_| true)?;
        let config = CrossEncoderConfig::from_json(&files.config_json)?;
        let tokenizer = PairTokenizer::from_json(&files.tokenizer_json, config.tokens_max)?;
        let model = config.init_named(files.tensors, device)?;
        Self::new(config, model, tokenizer, device)
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

fn to_safetensors(tensors: &[NamedTensor]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| {
            tensor
                .values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        (
            tensor.name.as_str(),
            view.expect("as many values as the shape says"),
        )
    });
    serialize(views, None).expect("names and shapes of our own network")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CrossEncoderError> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::File::open(&partial)?.sync_all())
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(write_error(path))
}
