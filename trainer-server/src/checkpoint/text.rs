//! What the text encoder has learned, on disk: factors of low rank, and the memory of their optimizer.
//!
//! ```text
//! text-encoder-GENERATION.safetensors   the change behind a published generation; written before its manifest
//! text-tuner.safetensors                the change that learns, with its optimizer
//! ```
//! The first is needed to start again: without it the encoder of the published version cannot be had.
//! The second is an aid, like the checkpoint beside it. Both are written copy-then-swap and hold a BLAKE3 of
//! everything in them; every size is checked before a value is read.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use shared_model::ids::BlobId;
use shared_model::text::{BertConfig, LowRankChange, NamedTensor};

use super::CheckpointError;
use crate::publish::files::write_whole;
use crate::train::optimizer::AdamW;
use crate::train::text_step::TextTuner;

const TUNER_FILE_NAME: &str = "text-tuner.safetensors";
const ENCODER_PREFIX: &str = "text-encoder-";
const EXTENSION: &str = ".safetensors";
/// Three values for each of the factors of the largest network and rank that are supported.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Names of the optimizer's moments in the file; factors have a dot and a layer in theirs.
const MOMENTS: [&str; 2] = ["optimizer.first", "optimizer.second"];

/// A change with what it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct TextCheckpoint {
    /// Fingerprint of the encoder as it was loaded.
    pub base: BlobId,
    /// Generation that was live, or, of a published change, its own.
    pub generation: u32,
    /// The factors; where it learns, with its optimizer.
    pub tuner: TextTuner,
}

/// Writes the change behind `checkpoint.generation`: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// The file system failed.
pub fn save_published(data_dir: &Path, checkpoint: &TextCheckpoint) -> Result<(), CheckpointError> {
    save(data_dir, &encoder_file(checkpoint.generation), checkpoint)
}

/// Reads the change behind `generation` of an encoder of these sizes; `None` where there is none.
///
/// # Errors
/// The file cannot be read, is malformed, or belongs to another generation or network.
pub fn load_published(
    data_dir: &Path,
    generation: u32,
    config: &BertConfig,
) -> Result<Option<TextCheckpoint>, CheckpointError> {
    let name = encoder_file(generation);
    let loaded = load(data_dir, &name, config)?;
    if let Some(actual) = loaded.as_ref().map(|loaded| loaded.generation)
        && actual != generation
    {
        let reason = format!("generation {actual:08x}, expected {generation:08x}");
        let path = data_dir.join(name);
        return Err(CheckpointError::Malformed { reason, path });
    }
    Ok(loaded)
}

/// Writes the change that learns.
///
/// # Errors
/// The file system failed; the one before is intact.
pub fn save_tuner(data_dir: &Path, checkpoint: &TextCheckpoint) -> Result<(), CheckpointError> {
    save(data_dir, TUNER_FILE_NAME, checkpoint)
}

/// Reads the change that learns; `None` where there is none.
///
/// # Errors
/// The file cannot be read, is malformed, or belongs to another network; the caller goes on without it.
pub fn load_tuner(
    data_dir: &Path,
    config: &BertConfig,
) -> Result<Option<TextCheckpoint>, CheckpointError> {
    load(data_dir, TUNER_FILE_NAME, config)
}

/// Removes published changes but those behind `kept`.
///
/// # Errors
/// The file system failed.
pub fn prune_published(data_dir: &Path, kept: &[u32]) -> Result<(), CheckpointError> {
    let kept: Vec<String> = kept
        .iter()
        .map(|generation| encoder_file(*generation))
        .collect();
    let io_error = |action, source| CheckpointError::Io {
        action,
        source,
        path: data_dir.to_owned(),
    };
    for entry in fs::read_dir(data_dir).map_err(|error| io_error("listing", error))? {
        let entry = entry.map_err(|error| io_error("listing", error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.starts_with(ENCODER_PREFIX) && name.ends_with(EXTENSION);
        if is_ours && !kept.contains(&name) {
            fs::remove_file(entry.path()).map_err(|error| io_error("removing a file of", error))?;
        }
    }
    Ok(())
}

fn encoder_file(generation: u32) -> String {
    format!("{ENCODER_PREFIX}{generation:08x}{EXTENSION}")
}

/// Factors and moments as they stand in the file.
fn tensors_of(tuner: &TextTuner) -> Vec<NamedTensor> {
    let mut tensors = tuner.change().factors().to_vec();
    for (name, values) in MOMENTS.into_iter().zip(tuner.optimizer().moments()) {
        tensors.push(NamedTensor {
            name: name.to_owned(),
            shape: vec![values.len()],
            values: values.to_vec(),
        });
    }
    tensors
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Hash of everything in a file.
fn checksum(checkpoint: &TextCheckpoint) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&checkpoint.base.0);
    hasher.update(&checkpoint.generation.to_le_bytes());
    hasher.update(&checkpoint.tuner.change().fingerprint().0);
    hasher.update(&checkpoint.tuner.optimizer().num_steps().to_le_bytes());
    for moment in checkpoint.tuner.optimizer().moments() {
        hasher.update(&bytes_of(moment));
    }
    BlobId(*hasher.finalize().as_bytes())
}

fn save(data_dir: &Path, name: &str, checkpoint: &TextCheckpoint) -> Result<(), CheckpointError> {
    let path = data_dir.join(name);
    let malformed = |reason: String| CheckpointError::Malformed {
        reason,
        path: path.clone(),
    };
    let tensors = tensors_of(&checkpoint.tuner);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| bytes_of(&tensor.values))
        .collect();
    let mut views = Vec::new();
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
            .map_err(|error| malformed(error.to_string()))?;
        views.push((tensor.name.as_str(), view));
    }
    let fields = [
        ("base", checkpoint.base.to_hex()),
        ("generation", format!("{:08x}", checkpoint.generation)),
        ("rank", checkpoint.tuner.change().rank().to_string()),
        (
            "num_steps",
            checkpoint.tuner.optimizer().num_steps().to_string(),
        ),
        ("checksum", checksum(checkpoint).to_hex()),
    ];
    let metadata: HashMap<String, String> = fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| malformed(error.to_string()))?;
    write_whole(data_dir, name, &bytes).map_err(|source| CheckpointError::Io {
        action: "writing",
        source,
        path,
    })
}

fn load(
    data_dir: &Path,
    name: &str,
    config: &BertConfig,
) -> Result<Option<TextCheckpoint>, CheckpointError> {
    let path = data_dir.join(name);
    let io_error = |action, source| CheckpointError::Io {
        action,
        source,
        path: path.clone(),
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("reading the size", error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            let reason = format!(
                "{} bytes, at most {FILE_BYTES_MAX} are read",
                metadata.len()
            );
            return Err(CheckpointError::Malformed { reason, path });
        }
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(|error| io_error("reading", error))?;
    let parsed = parse(&bytes, config);
    parsed
        .map(Some)
        .map_err(|reason| CheckpointError::Malformed { reason, path })
}

/// A file's content, with every field, shape and the checksum compared.
fn parse(bytes: &[u8], config: &BertConfig) -> Result<TextCheckpoint, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let fields = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| fields.get(name).ok_or_else(|| format!("no field {name}"));
    let wrong = |name: &str| {
        let value = fields.get(name).cloned().unwrap_or_default();
        format!("{name} is {value:?}")
    };
    let base = BlobId::from_hex(field("base")?).ok_or_else(|| wrong("base"))?;
    let generation = u32::from_str_radix(field("generation")?, 16);
    let generation = generation.map_err(|error| format!("{}: {error}", wrong("generation")))?;
    let rank = field("rank")?.parse::<usize>();
    let rank = rank.map_err(|error| format!("{}: {error}", wrong("rank")))?;
    let num_steps = field("num_steps")?.parse::<u32>();
    let num_steps = num_steps.map_err(|error| format!("{}: {error}", wrong("num_steps")))?;

    let mut tensors = read_tensors(bytes)?;
    let [first, second] = MOMENTS.map(|name| tensors.remove(name));
    let moments = first.zip(second).ok_or("no optimizer")?;
    let factors = tensors.into_values().collect();
    let change = LowRankChange::from_factors(config, rank, factors);
    let change = change.map_err(|error| error.to_string())?;
    let optimizer = AdamW::from_moments(moments.0.values, moments.1.values, num_steps);
    let tuner = optimizer.and_then(|optimizer| TextTuner::resumed(change, optimizer));
    let tuner = tuner.ok_or("the optimizer has another number of values than the factors")?;
    let checkpoint = TextCheckpoint {
        base,
        generation,
        tuner,
    };
    let (actual, expected) = (checksum(&checkpoint).to_hex(), field("checksum")?);
    if actual != *expected {
        return Err(format!("checksum is {actual}, expected {expected}"));
    }
    Ok(checkpoint)
}

fn read_tensors(bytes: &[u8]) -> Result<BTreeMap<String, NamedTensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format!("tensor {name} is {:?}, expected F32", view.dtype()));
        }
        let words = view.data().chunks_exact(4);
        let tensor = NamedTensor {
            name: name.clone(),
            shape: view.shape().to_vec(),
            values: words
                .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect(),
        };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BertConfig {
        let json = serde_json::json!({
            "vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 6, "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        });
        BertConfig::from_json(json.to_string().as_bytes()).expect("in bounds")
    }

    fn checkpoint(generation: u32) -> TextCheckpoint {
        let mut at = 0.0_f32;
        let draw = || {
            at += 1.0;
            at.sin()
        };
        let change = LowRankChange::new(&config(), 2, draw).expect("in bounds");
        let len = change.num_values();
        let moment: Vec<f32> = (0..len).map(|idx| (idx as f32).cos()).collect();
        let optimizer = AdamW::from_moments(moment.clone(), moment, 7).expect("same length");
        TextCheckpoint {
            base: BlobId::of(b"weights"),
            generation,
            tuner: TextTuner::resumed(change, optimizer).expect("same length"),
        }
    }

    #[test]
    fn both_files_survive_the_disk_to_the_bit() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(load_tuner(dir.path(), &config()).expect("readable"), None);
        save_tuner(dir.path(), &checkpoint(5)).expect("written");
        save_published(dir.path(), &checkpoint(6)).expect("written");
        let tuner = load_tuner(dir.path(), &config()).expect("readable");
        assert_eq!(tuner, Some(checkpoint(5)));
        let published = load_published(dir.path(), 6, &config()).expect("readable");
        assert_eq!(published, Some(checkpoint(6)));
        assert_eq!(
            load_published(dir.path(), 7, &config()).expect("readable"),
            None
        );
    }

    #[test]
    fn a_changed_bit_a_cut_and_another_network_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        save_tuner(dir.path(), &checkpoint(5)).expect("written");
        let path = dir.path().join(TUNER_FILE_NAME);
        let whole = fs::read(&path).expect("readable");
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        for bytes in [&flipped[..], &whole[..whole.len() - 1], &whole[..9], &[]] {
            fs::write(&path, bytes).expect("writable");
            let refused = load_tuner(dir.path(), &config());
            assert!(matches!(refused, Err(CheckpointError::Malformed { .. })));
        }
        fs::write(&path, &whole).expect("writable");
        let wider = BertConfig {
            hidden_size: 16,
            ..config()
        };
        let error = load_tuner(dir.path(), &wider).expect_err("another size");
        assert!(error.to_string().contains("layers.0.query"), "{error}");
    }

    #[test]
    fn a_file_under_the_name_of_another_generation_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        save_published(dir.path(), &checkpoint(6)).expect("written");
        let [own, other] = [6, 7].map(|generation| dir.path().join(encoder_file(generation)));
        fs::rename(own, other).expect("movable");
        let error = load_published(dir.path(), 7, &config()).expect_err("not its own");
        assert!(error.to_string().contains("00000006"), "{error}");
    }

    #[test]
    fn pruning_keeps_what_is_named_and_what_is_not_ours() {
        let dir = tempfile::tempdir().expect("a folder");
        for generation in [1, 2, 3] {
            save_published(dir.path(), &checkpoint(generation)).expect("written");
        }
        save_tuner(dir.path(), &checkpoint(3)).expect("written");
        prune_published(dir.path(), &[2, 3]).expect("removes");
        let is_there = |generation| dir.path().join(encoder_file(generation)).exists();
        assert_eq!([1, 2, 3].map(is_there), [false, true, true]);
        assert!(dir.path().join(TUNER_FILE_NAME).exists());
    }
}
