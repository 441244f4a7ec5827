//! The packed encoder of every generation that pages rank with: made in the background, kept over a restart, handed out.
//!
//! ```text
//! newest versions ─► their generations ─► file in the data folder, or made now ─► `/v1/models/{model}/text-encoder`
//! ```
//! A page asks for its generation when it first embeds a text. Until the file is made, which takes some ten seconds of
//! one core, it is told to ask again. Losing a file costs that time and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use burn::tensor::Device;
use shared_model::ids::BlobId;
use shared_model::manifest::{BlobRef, Channel, TextEncoderKind};
use tokio::sync::watch;

use super::{PackError, PackSource, pack};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::publish::Publisher;
use crate::publish::files::write_whole;
use crate::text_source::{TextSource, TextSourceError, read_pretrained};
use crate::trainer::{TrainerError, encoder_of};

const FILE_PREFIX: &str = "text-page-";
const FILE_EXTENSION: &str = ".bin";
/// Another rounding makes another file of the same encoder: to be raised then.
const ALGORITHM: &[u8] = b"freshet text pack 1";
/// Length of a hash in hexadecimal, of which names have a quarter.
const NAME_HEX: usize = 16;
/// How soon a new generation is noticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Those of the newest version, of a canary, and of the one before.
const NUM_KEPT: usize = 3;

/// What there is, by generation; clones share it.
#[derive(Debug, Clone, Default)]
pub struct TextPacks {
    packs: Arc<RwLock<Vec<(u32, TextPack)>>>,
}

/// The encoder of one generation.
#[derive(Debug, Clone)]
pub enum TextPack {
    /// The small one, which has no file.
    Small,
    /// A packed file.
    Packed(BlobId, Bytes),
    /// It could not be made; pages have none.
    Failed,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Source(#[from] TextSourceError),
    #[error(transparent)]
    Encoder(#[from] TrainerError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("generation {generation:08x} of the text encoder cannot be had, only {actual:08x}")]
    OtherGeneration { generation: u32, actual: u32 },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl TextPack {
    /// What is signed of it; nothing where there is none.
    #[must_use]
    pub fn kind(&self) -> Option<TextEncoderKind> {
        match self {
            Self::Small => Some(TextEncoderKind::Small),
            Self::Packed(id, bytes) => Some(TextEncoderKind::Packed(BlobRef {
                id: *id,
                bytes: bytes.len() as u64, // widening
            })),
            Self::Failed => None,
        }
    }
}

impl TextPacks {
    /// What there is of a generation so far.
    #[must_use]
    pub fn of(&self, generation: u32) -> Option<TextPack> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let found = packs.iter().find(|(of, _)| *of == generation);
        found.map(|(_, pack)| pack.clone())
    }

    /// A file by its hash.
    #[must_use]
    pub fn file(&self, wanted: BlobId) -> Option<Bytes> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.iter().find_map(|(_, pack)| match pack {
            TextPack::Packed(id, bytes) if *id == wanted => Some(bytes.clone()),
            _ => None,
        })
    }

    /// Adds a generation; the oldest one too many goes.
    pub fn put(&self, generation: u32, pack: TextPack) {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        packs.push((generation, pack));
        if packs.len() > NUM_KEPT {
            packs.remove(0);
        }
    }
}

/// Makes what is missing whenever a version has another generation, until the server stops.
pub async fn keep(
    packs: TextPacks,
    config: Arc<Config>,
    catalogue: Catalogue,
    publisher: Publisher,
    mut stopping: watch::Receiver<bool>,
) {
    if config.publish.text_bytes_max == 0 {
        return;
    }
    // Looked at and not followed: whoever follows the cohort's channel counts as a page of it.
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.changed() => return,
        }
        let newest = [Channel::Stable, Channel::Canary].map(|channel| publisher.newest(channel));
        let mut generations = newest.into_iter().flatten();
        let missing =
            generations.find(|published| packs.of(published.manifest.encoder_generation).is_none());
        let Some(generation) = missing.map(|published| published.manifest.encoder_generation)
        else {
            continue;
        };
        let (config, catalogue) = (Arc::clone(&config), catalogue.clone());
        let making = tokio::task::spawn_blocking(move || make(&config, &catalogue, generation));
        let made = tokio::select! {
            made = making => made,
            _ = stopping.changed() => return, // what is not written yet is made at the next start
        };
        let pack = made.unwrap_or_else(|error| {
            tracing::error!(%error, "packing the text encoder panicked");
            TextPack::Failed
        });
        packs.put(generation, pack);
    }
}

fn make(config: &Config, catalogue: &Catalogue, generation: u32) -> TextPack {
    let started = std::time::Instant::now();
    match find_or_make(config, catalogue, generation) {
        Ok(pack) => {
            if let TextPack::Packed(_, bytes) = &pack {
                tracing::info!(
                    bytes = bytes.len(),
                    seconds = started.elapsed().as_secs_f32(),
                    "pages can embed texts as generation {generation:08x} does"
                );
            }
            pack
        }
        Err(error) => {
            tracing::error!(%error, "pages cannot embed texts: the encoder cannot be packed");
            TextPack::Failed
        }
    }
}

fn find_or_make(
    config: &Config,
    catalogue: &Catalogue,
    generation: u32,
) -> Result<TextPack, KeeperError> {
    let data_dir = &config.server.data_dir;
    let bytes_max = config.publish.text_bytes_max;
    let name = file_name(generation, bytes_max);
    if let Some((id, bytes)) = read(&data_dir.join(&name)) {
        return Ok(TextPack::Packed(id, bytes));
    }
    let Some(source) = source_of(config, generation)? else {
        return Ok(TextPack::Small);
    };
    let bytes = pack(source, &catalogue.texts(), bytes_max)?;
    let id = BlobId::of(&bytes);
    write_whole(data_dir, &name, &[&id.0, bytes.as_slice()].concat()).map_err(|source| {
        KeeperError::Write {
            path: data_dir.join(&name),
            source,
        }
    })?;
    forget_others(data_dir, &name);
    Ok(TextPack::Packed(id, bytes.into()))
}

/// The encoder as of a generation; nothing where it is the small one.
fn source_of(config: &Config, generation: u32) -> Result<Option<PackSource>, KeeperError> {
    // Without the row cache: the trainer has it open.
    let encoder = encoder_of(config, &Device::flex(), Some(generation), None)?;
    let actual = encoder.generation();
    if actual != generation {
        return Err(KeeperError::OtherGeneration { generation, actual });
    }
    let Some(bert) = encoder.as_bert() else {
        return Ok(None);
    };
    let Some(files) = read_pretrained(&TextSource::of(config))? else {
        return Ok(None);
    };
    Ok(Some(PackSource {
        config: bert.encoder().config().clone(),
        tokenizer_json: files.tokenizer_json,
        tensors: bert.encoder().to_named().map_err(PackError::from)?,
        len_max: bert.tokenizer().len_max(),
    }))
}

fn file_name(generation: u32, bytes_max: usize) -> String {
    let sizes = (bytes_max as u64).to_le_bytes(); // widening
    let key = BlobId::of(&[ALGORITHM, &generation.to_le_bytes(), &sizes].concat());
    format!("{FILE_PREFIX}{}{FILE_EXTENSION}", &key.to_hex()[..NAME_HEX])
}

/// A file that is whole, with its hash.
fn read(path: &Path) -> Option<(BlobId, Bytes)> {
    let bytes = Bytes::from(fs::read(path).ok()?); // one that is not there or cannot be read is made anew
    let id = BlobId(*bytes.first_chunk()?);
    let bytes = bytes.slice(id.0.len()..);
    if BlobId::of(&bytes) == id {
        return Some((id, bytes));
    }
    tracing::warn!(
        "a packed text encoder is damaged and is made anew: {}",
        path.display()
    );
    None
}

/// Files of other generations are in memory where they are still wanted, and made anew after a restart.
fn forget_others(data_dir: &Path, kept: &str) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.starts_with(FILE_PREFIX) && name.ends_with(FILE_EXTENSION);
        if is_ours
            && name != kept
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "an old packed text encoder stays on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_found_and_the_oldest_go() {
        let packs = TextPacks::default();
        let id = BlobId::of(b"one");
        packs.put(1, TextPack::Packed(id, Bytes::from_static(b"one")));
        assert_eq!(packs.file(id), Some(Bytes::from_static(b"one")));
        let kind = packs.of(1).and_then(|pack| pack.kind());
        assert_eq!(
            kind,
            Some(TextEncoderKind::Packed(BlobRef { id, bytes: 3 }))
        );
        for generation in 2..=4 {
            packs.put(generation, TextPack::Small);
        }
        assert!(packs.of(1).is_none() && packs.file(id).is_none());
        assert!(packs.of(2).is_some());
    }

    #[test]
    fn a_file_is_read_where_it_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let (id, path) = (BlobId::of(b"bytes"), dir.path().join(file_name(1, 10)));
        assert_eq!(read(&path), None);
        fs::write(&path, [&id.0[..], b"bytes"].concat()).expect("written");
        assert_eq!(read(&path), Some((id, Bytes::from_static(b"bytes"))));
        fs::write(&path, [&id.0[..], b"bytez"].concat()).expect("written");
        assert_eq!(read(&path), None);
        fs::write(&path, b"short").expect("written");
        assert_eq!(read(&path), None);
        let other = file_name(2, 10);
        fs::write(dir.path().join(&other), b"").expect("written");
        forget_others(dir.path(), &other);
        assert!(!path.exists() && dir.path().join(&other).exists());
    }
}
