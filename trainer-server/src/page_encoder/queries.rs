//! Embeds queries on the server as pages do: with the packed encoder of a generation, opened when first wanted.

use std::sync::{Arc, Mutex, PoisonError};

use shared_model::ids::BlobId;
use shared_model::text::host::HostTextEncoder;
use shared_model::text::{
    LowRankChange, PackedEncoder, SmallTextEncoder, TextError, TextTokenizer,
};

use super::packs::{TextPack, TextPacks};

/// Why a query was not embedded.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Its file is being made.
    #[error("the text encoder of this version is being packed")]
    NotReady,
    /// It could not be made.
    #[error("the text encoder of this version cannot be packed")]
    NoPack,
    /// The file or the text is not as it should be.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// The encoder that was used last; clones share it.
#[derive(Clone, Default)]
pub struct QueryEncoders {
    opened: Arc<Mutex<Option<(BlobId, Arc<Opened>)>>>,
}

type Opened = (TextTokenizer, HostTextEncoder);

impl QueryEncoders {
    /// Embedding of `text`, `[text_dim]`: a unit vector, or zeros where the small encoder finds no word. The first call
    /// of a generation takes some hundred milliseconds longer.
    ///
    /// # Errors
    /// There is no encoder of `generation` (yet), or it failed.
    pub fn embed(
        &self,
        packs: &TextPacks,
        generation: u32,
        text: &str,
    ) -> Result<Vec<f32>, QueryError> {
        match packs.of(generation) {
            None => Err(QueryError::NotReady),
            Some(TextPack::Failed) => Err(QueryError::NoPack),
            Some(TextPack::Small) => Ok(SmallTextEncoder.embed(&[text.to_owned()])),
            Some(TextPack::Packed(id, bytes)) => {
                let open = || PackedEncoder::from_bytes(bytes.to_vec())?.open();
                self.embed_by(id, open, text)
            }
            Some(TextPack::Changed { base, change }) => {
                let open = || {
                    let packed = PackedEncoder::from_bytes(base.1.to_vec())?;
                    let learned =
                        LowRankChange::from_packed_bytes(&change.1, base.0, &packed.config)?;
                    packed.changed_by(&learned)?.open()
                };
                self.embed_by(change.0, open, text)
            }
        }
    }

    fn embed_by(
        &self,
        id: BlobId,
        open: impl FnOnce() -> Result<Opened, TextError>,
        text: &str,
    ) -> Result<Vec<f32>, QueryError> {
        let opened = self.opened(id, open)?;
        let tokens = opened.0.tokenize(text)?;
        Ok(opened.1.encode(&[tokens])?)
    }

    fn opened(
        &self,
        id: BlobId,
        open: impl FnOnce() -> Result<Opened, TextError>,
    ) -> Result<Arc<Opened>, TextError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, encoder)) = &*opened
            && *known == id
        {
            return Ok(Arc::clone(encoder));
        }
        let encoder = Arc::new(open()?);
        *opened = Some((id, Arc::clone(&encoder)));
        Ok(encoder)
    }
}
