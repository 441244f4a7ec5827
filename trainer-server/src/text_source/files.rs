//! A folder of pretrained files: sizes bounded, hashes checked where they are pinned, tensors parsed.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use burn::tensor::Device;
use indicatif::ProgressBar;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use shared_model::text::parameters::is_unused;
use shared_model::text::{
    AnyTextEncoder, BatchLimits, BertConfig, BertTextEncoder, NamedTensor, TextEncoder, TextError,
    TextTokenizer,
};

use super::{TextSourceError, io_error};

/// Most tokens read of a text: the length MiniLM was trained with. Item texts are rarely longer.
const TOKENS_PER_TEXT_MAX: usize = 128;

/// One of the three files.
#[derive(Debug, Clone, Copy)]
pub(super) struct PretrainedFile {
    /// Its name.
    pub(super) name: &'static str,
    /// Largest size that is read.
    pub(super) bytes_max: u64,
    /// Hash of the file of all-MiniLM-L6-v2.
    pub(super) sha256: &'static str,
}

pub(super) const WEIGHTS: PretrainedFile = PretrainedFile {
    name: "model.safetensors",
    bytes_max: 4 << 30,
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};

pub(super) const TOKENIZER: PretrainedFile = PretrainedFile {
    name: "tokenizer.json",
    bytes_max: 64 << 20,
    sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
};

pub(super) const CONFIG: PretrainedFile = PretrainedFile {
    name: "config.json",
    bytes_max: 1 << 20,
    sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
};

pub(super) const FILES: [PretrainedFile; 3] = [CONFIG, TOKENIZER, WEIGHTS];

/// Who vouches for the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The operator named the folder: any encoder of the family will do.
    Operator,
    /// They were downloaded: they must be the published ones, bit for bit.
    Pinned,
}

/// Whether all files are there.
pub(super) fn is_complete(dir: &Path) -> bool {
    FILES.iter().all(|file| dir.join(file.name).is_file())
}

/// Whether all files are there and are the published ones.
pub(super) fn is_pinned(dir: &Path) -> bool {
    FILES
        .iter()
        .all(|file| read(dir, *file, Trust::Pinned).is_ok())
}

/// Reads a file within its bound and, where pinned, checks its hash.
pub(super) fn read(
    dir: &Path,
    file: PretrainedFile,
    trust: Trust,
) -> Result<Vec<u8>, TextSourceError> {
    let path = dir.join(file.name);
    let opened = File::open(&path).map_err(io_error(&path))?;
    let num_bytes = opened.metadata().map_err(io_error(&path))?.len();
    if num_bytes > file.bytes_max {
        let bytes_max = file.bytes_max;
        return Err(TextSourceError::TooLarge {
            path,
            actual: num_bytes,
            bytes_max,
        });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(num_bytes).unwrap_or(0));
    opened
        .take(file.bytes_max)
        .read_to_end(&mut bytes)
        .map_err(io_error(&path))?;
    if trust == Trust::Pinned {
        let actual = sha256_hex(&bytes);
        if actual != file.sha256 {
            return Err(TextSourceError::Checksum {
                path,
                expected: file.sha256.to_owned(),
                actual,
            });
        }
    }
    Ok(bytes)
}

/// A folder read and parsed, not yet built into a network.
#[derive(Debug)]
pub struct EncoderFiles {
    /// `config.json`.
    pub config_json: Vec<u8>,
    /// `tokenizer.json`.
    pub tokenizer_json: Vec<u8>,
    /// What of `model.safetensors` was asked for.
    pub tensors: Vec<NamedTensor>,
}

/// Reads the three files of `dir` and the tensors that `is_wanted` by name.
pub(super) fn read_all(
    dir: &Path,
    trust: Trust,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<EncoderFiles, TextSourceError> {
    let config_json = read(dir, CONFIG, trust)?;
    let tokenizer_json = read(dir, TOKENIZER, trust)?;
    let weights = read(dir, WEIGHTS, trust)?;
    let tensors = named_tensors(&dir.join(WEIGHTS.name), &weights, is_wanted)?;
    Ok(EncoderFiles {
        config_json,
        tokenizer_json,
        tensors,
    })
}

/// Builds the encoder of a folder.
pub(super) fn load_folder(
    dir: &Path,
    trust: Trust,
    device: &Device,
    progress: &ProgressBar,
) -> Result<AnyTextEncoder, TextSourceError> {
    progress.set_message("reading the text encoder");
    let files = read_all(dir, trust, |name| !is_unused(name))?;
    progress.set_message("building the text encoder");
    let encoder = build(
        &files.config_json,
        &files.tokenizer_json,
        files.tensors,
        device,
    );
    let encoder = encoder.map_err(|source| TextSourceError::Unusable {
        dir: dir.to_owned(),
        source,
    })?;
    Ok(AnyTextEncoder::Bert(Box::new(encoder)))
}

fn build(
    config: &[u8],
    tokenizer: &[u8],
    tensors: Vec<NamedTensor>,
    device: &Device,
) -> Result<BertTextEncoder, TextError> {
    let config = BertConfig::from_json(config)?;
    let len_max = config.max_position_embeddings.min(TOKENS_PER_TEXT_MAX);
    let tokenizer = TextTokenizer::from_bytes(tokenizer, len_max)?;
    let encoder = TextEncoder::from_named(config, tensors, device)?;
    BertTextEncoder::new(tokenizer, encoder.with_batch_limits(batch_limits(device)))
}

fn batch_limits(device: &Device) -> BatchLimits {
    let is_cpu = device.clone().without_autodiff() == Device::flex();
    if is_cpu {
        BatchLimits::EXACT
    } else {
        BatchLimits::BUCKETS
    }
}

/// Tensors of a safetensors file whose names are wanted.
fn named_tensors(
    path: &Path,
    bytes: &[u8],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<NamedTensor>, TextSourceError> {
    let parsed = SafeTensors::deserialize(bytes);
    let parsed = parsed.map_err(|error| {
        let reason = format!("{error:?}");
        TextSourceError::Weights {
            path: path.to_owned(),
            reason,
        }
    })?;
    let mut tensors = Vec::with_capacity(parsed.len());
    for (name, view) in parsed.iter() {
        if !is_wanted(name) {
            continue;
        }
        if view.dtype() != Dtype::F32 {
            let dtype = format!("{:?}", view.dtype());
            return Err(TextSourceError::Dtype {
                tensor: name.to_owned(),
                dtype,
            });
        }
        let words = view.data().chunks_exact(size_of::<f32>());
        let values = words
            .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        tensors.push(NamedTensor {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            values,
        });
    }
    Ok(tensors)
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Makes a file that was moved into place survive a power loss.
pub(super) fn sync(path: &Path) -> Result<(), TextSourceError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(io_error(path))
}

/// Moves a file or folder within one file system.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), TextSourceError> {
    fs::rename(from, to).map_err(io_error(to))
}
