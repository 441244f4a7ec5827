//! Embedded rows kept over a restart, so that a known catalogue costs no encoder time.
//!
//! ```text
//! table "rows": BLAKE3(fingerprint ‖ text) → [dim] f32, little endian
//! ```
//! The key holds everything a row depends on, so rows are never stale and never rewritten; another
//! encoder, or the same one changed by what it has learned, simply misses. The file may be deleted at any time. Losing it costs time, not
//! correctness: whatever is wrong with it is logged and the texts are embedded again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, StorageError, TableDefinition,
};
use shared_model::ids::BlobId;
use shared_model::spec::NUM_ITEMS_MAX;
use shared_model::text::{AnyTextEncoder, BertTextEncoder, LowRankChange, TextError};

use super::TextSourceError;

const ROWS: TableDefinition<[u8; 32], &[u8]> = TableDefinition::new("rows");
const FILE_NAME: &str = "text-embeddings.redb";

/// Rows kept: one per item of the largest model. A full table is emptied and fills again.
const NUM_ROWS_MAX: u64 = NUM_ITEMS_MAX as u64; // fits: usize is at most 64 bits

/// Texts embedded between two commits, so that an interruption loses little.
const TEXTS_PER_COMMIT: usize = 2048;

/// The file of rows.
#[derive(Debug)]
pub struct EmbeddingCache {
    database: Database,
    path: PathBuf,
}

type Key = [u8; 32];

impl EmbeddingCache {
    /// Opens or makes the file in `data_dir`. A damaged file is replaced.
    ///
    /// # Errors
    /// The file is in use by another process or cannot be written.
    pub fn open(data_dir: &Path) -> Result<Self, TextSourceError> {
        let path = data_dir.join(FILE_NAME);
        let database = match Database::create(&path) {
            Err(error) if is_damage(&error) => {
                tracing::warn!(%error, "the embedding cache is damaged and is started anew: {}", path.display());
                std::fs::remove_file(&path).map_err(super::io_error(&path))?;
                Database::create(&path)
            }
            opened => opened,
        };
        let database = database.map_err(|error| cache_error(&path, error))?;
        Ok(Self { database, path })
    }

    /// Rows that are there, by position.
    fn get(&self, keys: &[Key], dim: usize) -> Result<Vec<Option<Vec<f32>>>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(ROWS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(vec![None; keys.len()]),
            opened => opened?,
        };
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let row = table.get(key)?;
            rows.push(row.and_then(|row| decode(row.value(), dim)));
        }
        Ok(rows)
    }

    fn put(&self, rows: &[(Key, &[f32])]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        let num_rows = transaction.open_table(ROWS)?.len()?;
        if num_rows >= NUM_ROWS_MAX {
            transaction.delete_table(ROWS)?;
        }
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, row) in rows {
                table.insert(key, encode(row).as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn warn(&self, error: &redb::Error) {
        tracing::warn!(%error, "embedding cache failed, texts are embedded without it: {}", self.path.display());
    }
}

/// An encoder that remembers; to be used in place of the bare one.
#[derive(Debug)]
pub struct CachedTextEncoder {
    encoder: AnyTextEncoder,
    cache: Option<Arc<EmbeddingCache>>,
}

impl CachedTextEncoder {
    /// Puts a cache before an encoder. The small encoder is quicker than a look-up and goes without.
    #[must_use]
    pub fn new(encoder: AnyTextEncoder, cache: Option<EmbeddingCache>) -> Self {
        let is_slow = matches!(encoder, AnyTextEncoder::Bert(_));
        Self {
            encoder,
            cache: cache.filter(|_| is_slow).map(Arc::new),
        }
    }

    /// The encoder behind.
    #[must_use]
    pub fn encoder(&self) -> &AnyTextEncoder {
        &self.encoder
    }

    /// The pretrained network behind, where it is one.
    #[must_use]
    pub fn as_bert(&self) -> Option<&BertTextEncoder> {
        self.encoder.as_bert()
    }

    /// The pretrained network as it was loaded, before the same cache.
    ///
    /// # Errors
    /// It has no weights.
    pub fn as_loaded(&self) -> Result<Self, TextError> {
        let bert = self.as_bert().ok_or(TextError::NothingToChange)?;
        Ok(Self {
            encoder: AnyTextEncoder::Bert(Box::new(bert.as_loaded())),
            cache: self.cache.clone(),
        })
    }

    /// The encoder as it was loaded, changed by `change` and no other, before the same cache.
    ///
    /// # Errors
    /// It has no weights, or the change belongs to a network of other sizes.
    pub fn changed_by(&self, change: LowRankChange) -> Result<Self, TextError> {
        let bert = self.as_bert().ok_or(TextError::NothingToChange)?;
        Ok(Self {
            encoder: AnyTextEncoder::Bert(Box::new(bert.changed_by(change)?)),
            cache: self.cache.clone(),
        })
    }

    /// Names the encoder in a state: the first bytes of its fingerprint.
    #[must_use]
    pub fn generation(&self) -> u32 {
        let fingerprint = self.fingerprint().0;
        u32::from_le_bytes([
            fingerprint[0],
            fingerprint[1],
            fingerprint[2],
            fingerprint[3],
        ])
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.encoder.dim()
    }

    /// See [`AnyTextEncoder::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> BlobId {
        self.encoder.fingerprint()
    }

    /// See [`AnyTextEncoder::embed`]; only texts never seen before reach the encoder.
    ///
    /// # Errors
    /// The encoder failed. A cache that fails is logged and passed by.
    pub fn embed(&self, texts: &[String]) -> Result<Vec<f32>, TextError> {
        let Some(cache) = &self.cache else {
            return self.encoder.embed(texts);
        };
        let fingerprint = self.fingerprint();
        let keys: Vec<Key> = texts.iter().map(|text| key_of(fingerprint, text)).collect();
        let mut rows = cache.get(&keys, self.dim()).unwrap_or_else(|error| {
            cache.warn(&error);
            vec![None; keys.len()]
        });
        let missing: Vec<usize> = (0..texts.len())
            .filter(|&text_idx| rows[text_idx].is_none())
            .collect();
        for text_idxs in missing.chunks(TEXTS_PER_COMMIT) {
            self.embed_missing(cache, texts, &keys, text_idxs, &mut rows)?;
        }
        let rows = rows
            .into_iter()
            .map(|row| row.expect("every missing row was embedded"));
        Ok(rows.flatten().collect())
    }

    /// Embeds the texts at `text_idxs` and commits their rows.
    fn embed_missing(
        &self,
        cache: &EmbeddingCache,
        texts: &[String],
        keys: &[Key],
        text_idxs: &[usize],
        rows: &mut [Option<Vec<f32>>],
    ) -> Result<(), TextError> {
        let missing_texts: Vec<String> = text_idxs
            .iter()
            .map(|&text_idx| texts[text_idx].clone())
            .collect();
        let embedded = self.encoder.embed(&missing_texts)?;
        let fresh = text_idxs.iter().zip(embedded.chunks_exact(self.dim()));
        let fresh: Vec<(usize, &[f32])> = fresh.map(|(&text_idx, row)| (text_idx, row)).collect();
        let entries: Vec<(Key, &[f32])> = fresh
            .iter()
            .map(|&(text_idx, row)| (keys[text_idx], row))
            .collect();
        if let Err(error) = cache.put(&entries) {
            cache.warn(&error);
        }
        for (text_idx, row) in fresh {
            rows[text_idx] = Some(row.to_vec());
        }
        Ok(())
    }
}

fn key_of(fingerprint: BlobId, text: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fingerprint.0).update(text.as_bytes());
    *hasher.finalize().as_bytes()
}

fn encode(row: &[f32]) -> Vec<u8> {
    row.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// `None` for anything that is not a finite row of `dim` values: it is embedded again.
fn decode(bytes: &[u8], dim: usize) -> Option<Vec<f32>> {
    if bytes.len() != dim * size_of::<f32>() {
        return None;
    }
    let words = bytes.chunks_exact(size_of::<f32>());
    let row: Vec<f32> = words
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    row.iter().all(|value| value.is_finite()).then_some(row)
}

fn is_damage(error: &DatabaseError) -> bool {
    if let DatabaseError::Storage(StorageError::Io(io)) = error {
        return io.kind() == std::io::ErrorKind::InvalidData;
    }
    matches!(
        error,
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_)
    )
}

fn cache_error(path: &Path, error: DatabaseError) -> TextSourceError {
    TextSourceError::Cache {
        path: path.to_owned(),
        source: Box::new(error.into()),
    }
}
