//! The encoder of a generation as the server has it: as it was loaded, and with what it has learned since.

use burn::tensor::Device;
use shared_model::text::{BertTextEncoder, LowRankChange};

use super::KeeperError;
use crate::config::Config;
use crate::text_pack::{PackError, PackSource};
use crate::text_source::{CachedTextEncoder, TextSource, read_tokenizer};
use crate::trainer::encoder_of;

/// A pretrained encoder and its tokenizer.
pub(super) struct OfGeneration {
    encoder: BertTextEncoder,
    loaded: CachedTextEncoder,
    tokenizer_json: Vec<u8>,
}

impl OfGeneration {
    /// Nothing where the encoder is the small one.
    ///
    /// # Errors
    /// Its files or what it has learned cannot be read, or belong to another generation.
    pub(super) fn load(config: &Config, generation: u32) -> Result<Option<Self>, KeeperError> {
        // Without the row cache: the trainer has it open.
        let encoder = encoder_of(config, &Device::flex(), Some(generation), None)?;
        let actual = encoder.generation();
        if actual != generation {
            return Err(KeeperError::OtherGeneration { generation, actual });
        }
        let Some(bert) = encoder.as_bert() else {
            return Ok(None);
        };
        let Some(tokenizer_json) = read_tokenizer(&TextSource::of(config))? else {
            return Ok(None);
        };
        Ok(Some(Self {
            encoder: bert.clone(),
            loaded: encoder.as_loaded().map_err(PackError::from)?,
            tokenizer_json,
        }))
    }

    /// Generation of the encoder as it was loaded.
    pub(super) fn loaded_generation(&self) -> u32 {
        self.loaded.generation()
    }

    /// What it has learned since.
    pub(super) fn change(&self) -> Option<&LowRankChange> {
        self.encoder.encoder().change()
    }

    /// With what it has learned.
    pub(super) fn source(&self) -> Result<PackSource, KeeperError> {
        self.source_of(&self.encoder)
    }

    /// As it was loaded.
    pub(super) fn loaded_source(&self) -> Result<PackSource, KeeperError> {
        let loaded = self.loaded.as_bert();
        self.source_of(loaded.expect("it was made of a network"))
    }

    fn source_of(&self, bert: &BertTextEncoder) -> Result<PackSource, KeeperError> {
        Ok(PackSource {
            config: bert.encoder().config().clone(),
            tokenizer_json: self.tokenizer_json.clone(),
            tensors: bert.encoder().to_named().map_err(PackError::from)?,
            len_max: bert.tokenizer().len_max(),
        })
    }
}
