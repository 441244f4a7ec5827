//! The packed encoder of every generation that pages rank with: made in the background, kept over a restart, handed out.
//!
//! ```text
//! newest versions ─► their generations ─► file in the data folder, or made now ─► `/v1/models/{model}/text-encoder`
//! ```
//! A page asks for its generation when it first embeds a text. Until the file is made, which takes some ten seconds of
//! one core, it is told to ask again. Losing a file costs that time and nothing else.
//! A file is fitted to the texts of its day, so another is made once there are twice as many items; whoever was told of
//! the one before can still fetch it. A failure is tried again after a pause.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use burn::tensor::Device;
use shared_model::ids::BlobId;
use shared_model::manifest::{BlobRef, Channel, TextEncoderKind};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{PackError, PackSource, pack};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::publish::Publisher;
use crate::publish::files::{TEMP_PREFIX, write_whole};
use crate::reserve::Reserve;
use crate::text_source::{TextSource, TextSourceError, read_tokenizer};
use crate::trainer::{TrainerError, encoder_of};

const FILE_PREFIX: &str = "text-page-";
const FILE_EXTENSION: &str = ".bin";
/// Another rounding makes another file of the same encoder: to be raised then, or with the layout of the file.
const ALGORITHM: &[u8] = b"freshet text pack 2";
/// Digits of a hash in hexadecimal that a name has: a quarter of them.
const NAME_HEX: usize = 16;
/// Bytes of the number of items before a file: what it was fitted to.
const COUNT_BYTES: usize = 8;
/// How soon a new generation is noticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure; doubled with each in a row.
const PAUSE_MIN: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// That of the newest version, that of the one before, and one that another has replaced.
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
    /// It could not be made so far; pages have none.
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
    #[error("packing the text encoder panicked: {0}")]
    Panic(#[from] JoinError),
}

/// What packs are made of, and where they go.
#[derive(Clone)]
pub struct KeeperParts {
    /// For the routes.
    pub packs: TextPacks,
    /// Settings.
    pub config: Arc<Config>,
    /// Texts that files are fitted to.
    pub catalogue: Catalogue,
    /// Says which generation pages rank with.
    pub publisher: Publisher,
    /// Room that a file must leave to the log.
    pub reserve: Arc<Reserve>,
}

/// When a generation is looked at again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Again {
    /// The small encoder has no file that could be another.
    Never,
    /// Once there are as many items.
    Grown { num_items: usize },
    /// After a failure.
    Later { at: Instant, pause: Duration },
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
        let found = packs.iter().rev().find(|(of, _)| *of == generation);
        found.map(|(_, pack)| pack.clone())
    }

    /// A file by its hash.
    #[must_use]
    pub fn file(&self, wanted: BlobId) -> Option<Bytes> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.iter().find_map(|(_, pack)| match pack {
            TextPack::Packed(id, bytes) => (*id == wanted).then(|| bytes.clone()),
            TextPack::Small | TextPack::Failed => None,
        })
    }

    /// Adds what there is of a generation now; the oldest one too many goes.
    pub fn put(&self, generation: u32, pack: TextPack) {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        packs.retain(|(of, known)| *of != generation || matches!(known, TextPack::Packed(..)));
        packs.push((generation, pack));
        if packs.len() > NUM_KEPT {
            packs.remove(0);
        }
    }
}

impl Again {
    /// Pause after a failure, where `last` says what was waited for before.
    fn pause_after(last: Option<Self>) -> Duration {
        match last {
            Some(Self::Later { pause, .. }) => (2 * pause).min(PAUSE_MAX),
            Some(Self::Never | Self::Grown { .. }) | None => PAUSE_MIN,
        }
    }

    fn is_due(self, num_items: usize, now: Instant) -> bool {
        match self {
            Self::Never => false,
            Self::Grown { num_items: wanted } => num_items >= wanted,
            Self::Later { at, .. } => now >= at,
        }
    }
}

/// The generation that packs are made for: that of the newest version. A cohort has no other, since a release with texts
/// of its own goes to everyone.
#[must_use]
pub fn wanted_generation(publisher: &Publisher) -> Option<u32> {
    let newest = publisher.newest(Channel::Stable)?;
    Some(newest.manifest.encoder_generation)
}

/// Makes what is missing, until the server stops.
pub async fn keep(parts: KeeperParts, mut stopping: watch::Receiver<bool>) {
    if parts.config.publish.text_bytes_max == 0 {
        return;
    }
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut looked: Option<(u32, Again)> = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.changed() => return,
        }
        let Some(generation) = wanted_generation(&parts.publisher) else {
            continue;
        };
        let last = looked.filter(|(of, _)| *of == generation);
        let last = last.map(|(_, again)| again);
        let num_items = parts.catalogue.num_ids();
        if last.is_some_and(|again| !again.is_due(num_items, Instant::now())) {
            continue;
        }
        let making = parts.clone();
        let making = tokio::task::spawn_blocking(move || making.make(generation, num_items));
        let made = tokio::select! {
            made = making => made.unwrap_or_else(|panic| Err(panic.into())),
            _ = stopping.changed() => return, // what is not written yet is made at the next start
        };
        let again = parts.take(generation, made, last);
        looked = Some((generation, again));
    }
}

impl KeeperParts {
    /// Hands out what was made and says when to look again.
    fn take(
        &self,
        generation: u32,
        made: Result<(TextPack, Again), KeeperError>,
        last: Option<Again>,
    ) -> Again {
        match made {
            Ok((pack, again)) => {
                self.packs.put(generation, pack);
                again
            }
            Err(error) => {
                let pause = Again::pause_after(last);
                let retry_secs = pause.as_secs();
                tracing::error!(%error, retry_secs, "pages cannot embed texts: the encoder cannot be packed");
                if self.packs.of(generation).is_none() {
                    self.packs.put(generation, TextPack::Failed);
                }
                let at = Instant::now() + pause;
                Again::Later { at, pause }
            }
        }
    }

    /// The pack of a generation: as it was found, or made now.
    fn make(&self, generation: u32, num_items: usize) -> Result<(TextPack, Again), KeeperError> {
        let data_dir = &self.config.server.data_dir;
        let bytes_max = self.config.publish.text_bytes_max;
        let name = file_name(generation, bytes_max);
        if let Some(found) = Found::read(&data_dir.join(&name)) {
            let again = grown(found.num_items);
            if !again.is_due(num_items, Instant::now()) {
                return Ok((TextPack::Packed(found.id, found.bytes), again));
            }
        }
        let started = Instant::now();
        let Some(source) = source_of(&self.config, generation)? else {
            return Ok((TextPack::Small, Again::Never));
        };
        let items = self.catalogue.items();
        let texts = items.iter().map(|item| item.full_text());
        let bytes = pack(source, texts, bytes_max)?;
        tracing::info!(
            bytes = bytes.len(),
            num_items,
            seconds = started.elapsed().as_secs_f32(),
            "pages can embed texts as generation {generation:08x} does"
        );
        let made = Found {
            id: BlobId::of(&bytes),
            num_items,
            bytes: bytes.into(),
        };
        match made.write(data_dir, &name, &self.reserve) {
            Ok(()) => forget_others(data_dir, &name),
            Err(error) => tracing::warn!(
                %error,
                "the packed text encoder is made again at the next start: it cannot be written to {}",
                data_dir.join(&name).display()
            ),
        }
        Ok((TextPack::Packed(made.id, made.bytes), grown(num_items)))
    }
}

/// A file for a catalogue is good until there are twice as many items.
fn grown(num_items: usize) -> Again {
    Again::Grown {
        num_items: num_items.max(1).saturating_mul(2),
    }
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
    let Some(tokenizer_json) = read_tokenizer(&TextSource::of(config))? else {
        return Ok(None);
    };
    Ok(Some(PackSource {
        config: bert.encoder().config().clone(),
        tokenizer_json,
        tensors: bert.encoder().to_named().map_err(PackError::from)?,
        len_max: bert.tokenizer().len_max(),
    }))
}

fn file_name(generation: u32, bytes_max: usize) -> String {
    let sizes = (bytes_max as u64).to_le_bytes(); // widening
    let key = BlobId::of(&[ALGORITHM, &generation.to_le_bytes(), &sizes].concat());
    format!("{FILE_PREFIX}{}{FILE_EXTENSION}", &key.to_hex()[..NAME_HEX])
}

/// A file as it lies in the data folder: `hash · num_items u64, little-endian · bytes`.
#[derive(Debug, PartialEq)]
struct Found {
    id: BlobId,
    num_items: usize,
    bytes: Bytes,
}

impl Found {
    /// One that is whole.
    fn read(path: &Path) -> Option<Self> {
        let bytes = Bytes::from(fs::read(path).ok()?); // one that is not there or cannot be read is made anew
        let id = BlobId(*bytes.first_chunk()?);
        let num_items = u64::from_le_bytes(*bytes[id.0.len()..].first_chunk()?);
        let bytes = bytes.slice(id.0.len() + COUNT_BYTES..);
        if BlobId::of(&bytes) != id {
            tracing::warn!(
                "a packed text encoder is damaged and is made anew: {}",
                path.display()
            );
            return None;
        }
        Some(Self {
            id,
            num_items: usize::try_from(num_items).unwrap_or(usize::MAX), // such a count is damaged: good for ever
            bytes,
        })
    }

    /// Never takes the room that the log needs.
    fn write(&self, data_dir: &Path, name: &str, reserve: &Reserve) -> io::Result<()> {
        reserve.take()?;
        let num_items = (self.num_items as u64).to_le_bytes(); // widening
        write_whole(
            data_dir,
            name,
            &[&self.id.0, &num_items[..], &self.bytes].concat(),
        )
    }
}

/// Files of other generations are in memory where they are still wanted, and made anew after a restart; unfinished ones
/// are what a stop has left.
fn forget_others(data_dir: &Path, kept: &str) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let finished = name.strip_prefix(TEMP_PREFIX).unwrap_or(&name);
        let is_ours = finished.starts_with(FILE_PREFIX) && finished.ends_with(FILE_EXTENSION);
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

    fn packed(text: &'static [u8]) -> TextPack {
        TextPack::Packed(BlobId::of(text), Bytes::from_static(text))
    }

    #[test]
    fn generations_are_found_and_the_oldest_go() {
        let packs = TextPacks::default();
        let id = BlobId::of(b"one");
        packs.put(1, packed(b"one"));
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
    fn what_replaces_a_pack_is_handed_out_and_the_file_before_can_still_be_fetched() {
        let packs = TextPacks::default();
        packs.put(1, TextPack::Failed);
        packs.put(1, packed(b"one"));
        packs.put(1, packed(b"two"));
        assert_eq!(
            packs.of(1).and_then(|pack| pack.kind()),
            packed(b"two").kind()
        );
        for text in [&b"one"[..], b"two"] {
            assert!(packs.file(BlobId::of(text)).is_some());
        }
        packs.put(2, TextPack::Failed);
        assert!(packs.of(1).is_some(), "a failure took no place");
    }

    #[test]
    fn another_is_made_for_twice_the_items_and_after_growing_pauses() {
        let now = Instant::now();
        assert!(!Again::Never.is_due(usize::MAX, now));
        for (num_items, due_at) in [(0, 2), (1, 2), (100, 200), (usize::MAX, usize::MAX)] {
            assert!(!grown(num_items).is_due(due_at - 1, now));
            assert!(grown(num_items).is_due(due_at, now));
        }
        let mut last = Some(grown(1));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = Again::pause_after(last);
            let at = now + pause;
            let later = Again::Later { at, pause };
            assert!(!later.is_due(1, at - Duration::from_millis(1)) && later.is_due(1, at));
            pauses.push(pause.as_secs());
            last = Some(later);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(Again::pause_after(None), PAUSE_MIN);
    }

    #[test]
    fn a_file_is_read_where_it_is_whole_and_leftovers_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let (dir, name) = (dir.path(), file_name(1, 10));
        let path = dir.join(&name);
        let made = |bytes: &'static [u8]| Found {
            id: BlobId::of(b"bytes"),
            num_items: 300,
            bytes: Bytes::from_static(bytes),
        };
        let reserve = Reserve::open(dir, 10);
        assert_eq!(Found::read(&path), None);
        made(b"bytes").write(dir, &name, &reserve).expect("written");
        assert_eq!(Found::read(&path), Some(made(b"bytes")));
        made(b"bytez").write(dir, &name, &reserve).expect("written");
        assert_eq!(Found::read(&path), None);
        fs::write(&path, [0; 35]).expect("written");
        assert_eq!(Found::read(&path), None);
        let other = file_name(2, 10);
        for name in [other.clone(), format!("{TEMP_PREFIX}{name}")] {
            fs::write(dir.join(name), b"").expect("written");
        }
        forget_others(dir, &other);
        assert!(!path.exists() && dir.join(&other).exists());
        assert!(!dir.join(format!("{TEMP_PREFIX}{name}")).exists());
    }

    #[test]
    fn a_file_that_would_take_the_room_of_the_log_is_not_written() {
        let dir = tempfile::tempdir().expect("a folder");
        // Nowhere to be held, as on a full disk.
        let reserve = Reserve::open(&dir.path().join("missing"), 10);
        let made = Found {
            id: BlobId::of(b"bytes"),
            num_items: 1,
            bytes: Bytes::from_static(b"bytes"),
        };
        assert!(made.write(dir.path(), "text-page-a.bin", &reserve).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
    }
}
