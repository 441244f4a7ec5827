//! Checkpoint: trained f32 weights and optimizer state, written copy-then-swap.
//!
//! One safetensors file, `checkpoint.safetensors`; the optimizer travels as JSON in its metadata.
//! It is an aid, not the truth: without it, or with an older one, a restart loses only residuals.
//! Histories and counts are not in it, the log has them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use shared_model::ids::Version;
use shared_model::model::parameters::ParameterSet;

use crate::publish::files::write_whole;
use crate::train::fast_step::FastOptimizer;

pub mod text;

const FILE_NAME: &str = "checkpoint.safetensors";
/// Larger than any model within the limits of the spec on a host of this project's class.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// What was saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Version that was live.
    pub version: Version,
    /// Weights by tensor name, row-major.
    pub tensors: BTreeMap<String, Vec<f32>>,
    /// State of the fast steps.
    pub optimizer: FastOptimizer,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system failed.
    #[error("{action} failed: {source}, {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
        /// On which file.
        path: PathBuf,
    },
    /// The bytes are no checkpoint.
    #[error("the checkpoint is malformed: {reason}, {path}")]
    Malformed {
        /// What is wrong.
        reason: String,
        /// The file.
        path: PathBuf,
    },
}

/// Writes the checkpoint of `data_dir`: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// The file system failed; the previous checkpoint is intact.
pub fn save(
    data_dir: &Path,
    version: Version,
    parameters: &ParameterSet,
    optimizer: &FastOptimizer,
) -> Result<(), CheckpointError> {
    let path = data_dir.join(FILE_NAME);
    let malformed = |reason: String| CheckpointError::Malformed {
        reason,
        path: path.clone(),
    };
    let mut bytes_of: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (shape, values) in parameters.shapes().iter().zip(&parameters.tensors) {
        let is_weight = shape.is_trained();
        if is_weight && !values.is_empty() {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            bytes_of.push((
                shape.name.clone(),
                vec![shape.num_rows, shape.num_cols],
                bytes,
            ));
        }
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &bytes_of {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .map_err(|error| malformed(error.to_string()))?;
        views.push((name.clone(), view));
    }
    let optimizer =
        serde_json::to_string(optimizer).map_err(|error| malformed(error.to_string()))?;
    let metadata = HashMap::from([
        ("version".to_owned(), version.to_string()),
        ("optimizer".to_owned(), optimizer),
    ]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| malformed(error.to_string()))?;
    write_whole(data_dir, FILE_NAME, &bytes).map_err(|source| CheckpointError::Io {
        action: "writing",
        source,
        path,
    })
}

/// Reads the checkpoint of `data_dir`; `None` where there is none.
///
/// # Errors
/// The file cannot be read or is malformed; the caller goes on without it.
pub fn load(data_dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let path = data_dir.join(FILE_NAME);
    let io_error = |action, source| CheckpointError::Io {
        action,
        source,
        path: path.clone(),
    };
    let malformed = |reason: String| CheckpointError::Malformed {
        reason,
        path: path.clone(),
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("reading the size", error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(malformed(format!(
                "{} bytes, at most {FILE_BYTES_MAX} are read",
                metadata.len()
            )));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(|error| io_error("reading", error))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| malformed(error.to_string()))?;
    let fields = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| {
        fields
            .get(name)
            .ok_or_else(|| malformed(format!("no field {name}")))
    };
    let version = field("version")?
        .parse()
        .map_err(|error| malformed(format!("version: {error}")))?;
    let optimizer = serde_json::from_str(field("optimizer")?)
        .map_err(|error| malformed(format!("optimizer: {error}")))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(malformed(format!(
                "tensor {name} is {:?}, expected F32",
                view.dtype()
            )));
        }
        let values = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        tensors.insert(name, values);
    }
    Ok(Some(Checkpoint {
        version: Version(version),
        tensors,
        optimizer,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::init::init_parameters;
    use shared_model::spec::ModelSpec;

    #[test]
    fn a_checkpoint_survives_the_disk_and_a_torn_one_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(load(folder.path()).expect("readable"), None);
        let spec = ModelSpec {
            text_dim: 0,
            ..ModelSpec::default()
        };
        let parameters = init_parameters(&spec, 3, 1);
        let optimizer = FastOptimizer::default();
        save(folder.path(), Version(7), &parameters, &optimizer).expect("written");
        let loaded = load(folder.path()).expect("readable").expect("present");
        assert_eq!(
            (loaded.version, &loaded.optimizer),
            (Version(7), &optimizer)
        );
        assert_eq!(loaded.tensors["start"], parameters.tensor("start"));

        let path = folder.path().join(FILE_NAME);
        let bytes = fs::read(&path).expect("readable");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
        assert!(matches!(
            load(folder.path()),
            Err(CheckpointError::Malformed { .. })
        ));
    }
}
