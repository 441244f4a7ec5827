//! What pages can be given, by generation, and what came of the recipe.

use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::ids::BlobId;
use shared_model::manifest::{BlobRef, TEXT_CHANGE_BYTES_MAX, TextEncoderKind};

/// That of the newest version, that of the one before, and one that another has replaced.
const NUM_KEPT: usize = 3;

/// What there is, by generation; clones share it.
#[derive(Debug, Clone, Default)]
pub struct TextPacks {
    shared: Arc<RwLock<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    packs: Vec<(u32, TextPack)>,
    outcome: Option<RecipeOutcome>,
}

/// The encoder of one generation.
#[derive(Debug, Clone)]
pub enum TextPack {
    /// The small one, which has no file.
    Small,
    /// A packed file.
    Packed(BlobId, Bytes),
    /// The packed file of the encoder as it was loaded, or of a smaller one by the recipe, and what was learned since.
    Changed {
        /// The file.
        base: (BlobId, Bytes),
        /// The change.
        change: (BlobId, Bytes),
    },
    /// It could not be made so far; pages have none.
    Failed,
}

/// What came of following the recipe for a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecipeOutcome {
    /// Generation of the text encoder.
    pub generation: u32,
    /// The recipe, for people.
    pub recipe: String,
    /// Bytes of what it made: of the change alone, where the file stays.
    pub bytes: usize,
    /// NDCG@10 of ranking by text alone, over that of the whole encoder in f32.
    pub relative_ndcg: f64,
    /// Its 95 % interval over users.
    pub relative_ndcg_interval: [f64; 2],
    /// Why pages have the whole encoder instead; empty where they have the smaller one.
    pub refused: Vec<String>,
}

impl TextPack {
    /// A file that holds all of an encoder.
    pub(super) fn packed(bytes: Vec<u8>) -> Self {
        Self::Packed(BlobId::of(&bytes), bytes.into())
    }

    /// Whether a change is smaller than the file that it belongs to, and a page takes one so large.
    pub(super) fn is_worth_it(change: &[u8], base: &[u8]) -> bool {
        change.len() < base.len() && change.len() as u64 <= TEXT_CHANGE_BYTES_MAX // widening
    }

    /// A file, and a change of it.
    pub(super) fn changed(base: (BlobId, Bytes), change: Vec<u8>) -> Self {
        let change = (BlobId::of(&change), change.into());
        Self::Changed { base, change }
    }

    /// What is signed of it; nothing where there is none.
    #[must_use]
    pub fn kind(&self) -> Option<TextEncoderKind> {
        let blob = |id: &BlobId, bytes: &Bytes| BlobRef {
            id: *id,
            bytes: bytes.len() as u64, // widening
        };
        match self {
            Self::Small => Some(TextEncoderKind::Small),
            Self::Packed(id, bytes) => Some(TextEncoderKind::Packed(blob(id, bytes))),
            Self::Changed { base, change } => Some(TextEncoderKind::Changed {
                base: blob(&base.0, &base.1),
                change: blob(&change.0, &change.1),
            }),
            Self::Failed => None,
        }
    }

    /// Whether pages can embed texts by a file of it.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.files().next().is_some()
    }

    /// Its files: that of a whole encoder first.
    pub(super) fn files(&self) -> impl Iterator<Item = (&BlobId, &Bytes)> {
        let (file, change) = match self {
            Self::Small | Self::Failed => (None, None),
            Self::Packed(id, bytes) => (Some((id, bytes)), None),
            Self::Changed { base, change } => {
                (Some((&base.0, &base.1)), Some((&change.0, &change.1)))
            }
        };
        file.into_iter().chain(change)
    }
}

impl TextPacks {
    /// What there is of a generation so far.
    #[must_use]
    pub fn of(&self, generation: u32) -> Option<TextPack> {
        self.read(|shared| {
            let found = shared.packs.iter().rev().find(|(of, _)| *of == generation);
            found.map(|(_, pack)| pack.clone())
        })
    }

    /// A file by its hash.
    #[must_use]
    pub fn file(&self, wanted: BlobId) -> Option<Bytes> {
        self.read(|shared| {
            let mut files = shared.packs.iter().flat_map(|(_, pack)| pack.files());
            let found = files.find(|(id, _)| **id == wanted);
            found.map(|(_, bytes)| bytes.clone())
        })
    }

    /// What there is of other generations, the newest first.
    pub(super) fn of_others(&self, generation: u32) -> Vec<TextPack> {
        self.read(|shared| {
            let others = shared.packs.iter().rev();
            let others = others.filter(|(of, _)| *of != generation);
            others.map(|(_, pack)| pack.clone()).collect()
        })
    }

    /// Hashes of all files.
    pub(super) fn ids(&self) -> Vec<BlobId> {
        self.read(|shared| {
            let files = shared.packs.iter().flat_map(|(_, pack)| pack.files());
            files.map(|(id, _)| *id).collect()
        })
    }

    /// Adds what there is of a generation now; the oldest one too many goes.
    pub fn put(&self, generation: u32, pack: TextPack) {
        self.write(|shared| {
            let packs = &mut shared.packs;
            packs.retain(|(of, known)| *of != generation || known.has_file());
            packs.push((generation, pack));
            if packs.len() > NUM_KEPT {
                packs.remove(0);
            }
        });
    }

    /// What came of the recipe for the newest generation that it was followed for.
    #[must_use]
    pub fn outcome(&self) -> Option<RecipeOutcome> {
        self.read(|shared| shared.outcome.clone())
    }

    pub(super) fn note(&self, outcome: RecipeOutcome) {
        self.write(|shared| shared.outcome = Some(outcome));
    }

    fn read<T>(&self, of: impl FnOnce(&Shared) -> T) -> T {
        of(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut self.shared.write().unwrap_or_else(PoisonError::into_inner));
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
        assert!(packs.of_others(1).is_empty());
        assert!(packs.of_others(2)[0].has_file());
        for generation in 2..=4 {
            packs.put(generation, TextPack::Small);
        }
        assert!(packs.of(1).is_none() && packs.file(id).is_none());
        assert!(packs.of(2).is_some());
    }

    #[test]
    fn both_files_of_a_changed_encoder_are_found() {
        let packs = TextPacks::default();
        let blob = |text: &'static [u8]| (BlobId::of(text), Bytes::from_static(text));
        let (base, change) = (blob(b"base"), blob(b"change"));
        packs.put(
            1,
            TextPack::Changed {
                base: base.clone(),
                change: change.clone(),
            },
        );
        for (id, bytes) in [base, change] {
            assert_eq!(packs.file(id), Some(bytes));
        }
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
}
