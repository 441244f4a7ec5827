//! The text encoder made small enough for pages: weights rounded to few bits where it hurts least.
//!
//! ```text
//! texts of the catalogue ─► inputs of every linear layer ─► rounding that makes up for itself ─► packed file
//!                              (moments)                        (rounding)              (shared_model::text::packed)
//! ```
//! `budget` finds the steps at which the file has the size that is asked for.
//! Not here: the format of the file and the network that reads it (`shared_model::text`), and which file pages get
//! (`page_encoder`).

mod budget;
pub(crate) mod moments;
mod rounding;
mod sensitivity;
mod source;

use std::collections::BTreeMap;

use shared_model::text::packed::{
    self, CodedMatrix, POSITIONS, PackedEncoder, PackedTensor, TensorKind, WORDS,
};
use shared_model::text::{
    BertConfig, HostTextEncoder, NamedTensor, TextError, TextTokenizer, TokenizedText,
};

pub use source::PackSource;

pub(crate) use budget::Steps;
use moments::Moments;
use rounding::RowSteps;
use sensitivity::Factors;

/// Texts that are looked at for the inputs of linear layers: more made no difference that could be measured.
const NUM_CALIBRATION_TEXTS: usize = 256;
/// Name of the token type embeddings, which a packed file adds to the positions.
pub const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";

/// Why no file could be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PackError {
    /// The encoder is not sound.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Not even the coarsest steps make it so small.
    #[error("this text encoder takes at least {least} bytes, at most {bytes_max} are allowed")]
    TooSmall {
        /// What was asked for.
        bytes_max: usize,
        /// What it takes.
        least: usize,
    },
}

/// How an encoder is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// Bytes of the file, tokenizer included, at most.
    pub bytes_max: usize,
    /// Whether steps go by what rounding each matrix alone does to embeddings of texts, which takes a pass over 48 texts
    /// per matrix; else each is the same share of its matrix's deviation.
    pub mixed_steps: bool,
    /// Percent of a step below which a weight becomes 0, at least 50: more zeros cost fewer bits, and the steps are
    /// finer for it.
    pub zero_percent: u8,
}

impl PackOptions {
    /// Even steps and the nearest codes, in so many bytes.
    #[must_use]
    pub fn within(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            mixed_steps: false,
            zero_percent: 50,
        }
    }

    /// As a share of a step.
    fn zero_share(self) -> f32 {
        f32::from(self.zero_percent) / 100.0
    }
}

/// A packed file of at most `bytes_max` bytes, rounded for texts like these.
///
/// # Errors
/// The encoder is not sound, or cannot be so small.
pub fn pack<T: AsRef<str>>(
    source: PackSource,
    texts: impl ExactSizeIterator<Item = T>,
    bytes_max: usize,
) -> Result<Vec<u8>, PackError> {
    pack_with(source, texts, PackOptions::within(bytes_max))
}

/// Likewise, rounded as `options` say.
///
/// # Errors
/// The encoder is not sound, or cannot be so small.
pub fn pack_with<T: AsRef<str>>(
    source: PackSource,
    texts: impl ExactSizeIterator<Item = T>,
    options: PackOptions,
) -> Result<Vec<u8>, PackError> {
    let bytes_max = options.bytes_max;
    let PackSource {
        mut config,
        tokenizer_json,
        tensors,
        len_max,
    } = source;
    packed::check_num_codes(&config)?;
    let tokenizer = TextTokenizer::from_bytes(&tokenizer_json, len_max)?;
    let Calibration { texts, is_used } = Calibration::of(&tokenizer, texts, config.vocab_size)?;
    let moments = {
        let network = HostTextEncoder::from_named(config.clone(), tensors.clone())?;
        Moments::of(&network, &texts)?
    };
    config.max_position_embeddings = config.max_position_embeddings.min(len_max);
    let weights = Weights::new(&config, tensors, is_used)?;
    let fitting = |kind: Steps| kind.for_budget(&weights, tokenizer_json.len(), bytes_max);
    let kind = Steps::of_share(0.0).with(Factors::default(), options.zero_share());
    let mut steps = fitting(kind);
    if options.mixed_steps {
        let factors = Factors::measured(&config, &weights, &moments, &texts, &steps)?;
        steps = fitting(steps.with(factors, options.zero_share()));
    }
    loop {
        let packed = PackedEncoder {
            config: config.clone(),
            tokenizer_json: tokenizer_json.clone(),
            tensors: weights.rounded(&moments, &steps),
        };
        let bytes = packed.to_bytes()?;
        if bytes.len() <= bytes_max {
            return Ok(bytes);
        }
        steps = steps.coarser().ok_or(PackError::TooSmall {
            bytes_max,
            least: bytes.len(),
        })?;
    }
}

/// The share of every matrix's deviation that its step has in a file of this size, for texts like these.
///
/// # Errors
/// The encoder is not sound.
pub fn step_share<T: AsRef<str>>(
    source: &PackSource,
    texts: impl ExactSizeIterator<Item = T>,
    bytes_max: usize,
) -> Result<f32, PackError> {
    let tokenizer = TextTokenizer::from_bytes(&source.tokenizer_json, source.len_max)?;
    let calibration = Calibration::of(&tokenizer, texts, source.config.vocab_size)?;
    let mut config = source.config.clone();
    config.max_position_embeddings = config.max_position_embeddings.min(source.len_max);
    let weights = Weights::new(&config, source.tensors.clone(), calibration.is_used)?;
    let num_bytes = source.tokenizer_json.len();
    let steps = Steps::of_share(0.0).for_budget(&weights, num_bytes, bytes_max);
    Ok(steps.share())
}

/// The weights to be rounded, as the file lays them out.
struct Weights {
    layout: Vec<(String, TensorKind)>,
    values: BTreeMap<String, Vec<f32>>,
    /// By token: whether the catalogue uses it.
    is_used: Vec<bool>,
}

impl Weights {
    fn new(
        config: &BertConfig,
        tensors: Vec<NamedTensor>,
        is_used: Vec<bool>,
    ) -> Result<Self, TextError> {
        let mut values: BTreeMap<String, Vec<f32>> = tensors
            .into_iter()
            .map(|tensor| (tensor.name, tensor.values))
            .collect();
        let types = values.remove(TOKEN_TYPES);
        let types = types.ok_or_else(|| TextError::TensorMissing {
            tensor: TOKEN_TYPES.to_owned(),
        })?;
        let dim = config.hidden_size;
        if let Some(positions) = values.get_mut(POSITIONS) {
            positions.truncate(config.max_position_embeddings * dim);
            for position in positions.chunks_exact_mut(dim) {
                position
                    .iter_mut()
                    .zip(&types)
                    .for_each(|(value, of_type)| *value += of_type);
            }
        }
        let layout = packed::layout(config);
        match layout.iter().find(|(name, _)| !values.contains_key(name)) {
            Some((name, _)) => Err(TextError::TensorMissing {
                tensor: name.clone(),
            }),
            None => Ok(Self {
                layout,
                values,
                is_used,
            }),
        }
    }

    /// Everything with the codes that it has at these steps.
    fn rounded(&self, moments: &Moments, steps: &Steps) -> BTreeMap<String, PackedTensor> {
        let rounded = self.layout.iter().map(|(name, kind)| {
            let tensor = self.rounded_one(name, *kind, moments, steps);
            (name.clone(), tensor)
        });
        rounded.collect()
    }

    /// One of them.
    fn rounded_one(
        &self,
        name: &str,
        kind: TensorKind,
        moments: &Moments,
        steps: &Steps,
    ) -> PackedTensor {
        let values = &self.values[name];
        match kind {
            TensorKind::Vector { .. } => PackedTensor::Vector(values.clone()),
            TensorKind::Matrix { num_cols, .. } if name == WORDS => {
                PackedTensor::Matrix(self.words(num_cols, steps))
            }
            TensorKind::Matrix { num_cols, .. } => {
                let step = steps.of_matrix(name, values);
                let steps = RowSteps::of_matrix(values, num_cols, step).with_zero(steps.zero);
                PackedTensor::Matrix(match moments.compensation(name) {
                    Some(compensation) => rounding::with_compensation(values, steps, compensation),
                    None => rounding::nearest(values, num_cols, steps),
                })
            }
        }
    }

    /// As they are, in the order of the layout, as a weights file names them.
    fn to_named(&self, config: &BertConfig) -> Vec<NamedTensor> {
        let tensors = self.layout.iter().map(|(name, kind)| NamedTensor {
            name: name.clone(),
            shape: kind.shape(),
            values: self.values[name].clone(),
        });
        tensors.chain([source::no_token_types(config)]).collect()
    }

    /// Words of the catalogue have fine steps, all others coarse ones.
    fn words(&self, num_cols: usize, steps: &Steps) -> CodedMatrix {
        let values = &self.values[WORDS];
        let words = RowSteps::of_words(values, num_cols, steps.of_words(values), &self.is_used);
        let steps = words.with_zero(steps.zero);
        rounding::nearest(values, num_cols, steps)
    }
}

/// What is kept of the texts of a catalogue.
struct Calibration {
    /// [`NUM_CALIBRATION_TEXTS`] at most, evenly spread.
    texts: Vec<TokenizedText>,
    /// By token: whether any text has it.
    is_used: Vec<bool>,
}

impl Calibration {
    fn of<T: AsRef<str>>(
        tokenizer: &TextTokenizer,
        texts: impl ExactSizeIterator<Item = T>,
        vocab_size: usize,
    ) -> Result<Self, TextError> {
        let stride = texts.len().div_ceil(NUM_CALIBRATION_TEXTS).max(1);
        let (mut kept, mut is_used) = (Vec::new(), vec![false; vocab_size]);
        for (idx, text) in texts.enumerate() {
            let text = tokenizer.tokenize(text.as_ref())?;
            for token_id in &text.token_ids {
                if let Some(is_used) = is_used.get_mut(*token_id as usize) {
                    *is_used = true;
                }
            }
            if idx % stride == 0 {
                kept.push(text);
            }
        }
        let texts = kept;
        Ok(Self { texts, is_used })
    }
}

#[cfg(test)]
mod tests;
