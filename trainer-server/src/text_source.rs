//! Where the text encoder comes from: a folder, the cache of downloaded weights, or no files at all.
//!
//! `files` reads and checks a folder, `fetch` and `hub` fill the cache, `cache` keeps embedded rows over a
//! restart. Not here: the encoders (`shared_model::text`) and which texts are embedded (`learner`).

mod files;

pub mod cache;
pub mod fetch;
pub mod hub;

use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use indicatif::ProgressBar;
use shared_model::text::{AnyTextEncoder, SmallTextEncoder, TextError};

pub use cache::{CachedTextEncoder, EmbeddingCache};
pub use fetch::{cli_fetch, fetch_pretrained};
pub use files::EncoderFiles;

use crate::config::{Config, TextEncoderChoice};

/// The command that fills the cache, as named in messages.
const FETCH_COMMAND: &str = "freshet text fetch";

/// Which encoder to load and where to look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSource {
    /// Pretrained, small, or whichever can be had.
    pub choice: TextEncoderChoice,
    /// Folder with `model.safetensors`, `tokenizer.json` and `config.json`; where it is named, no other is looked at.
    pub dir: Option<PathBuf>,
    /// Where [`fetch_pretrained`] puts what it downloads.
    pub cache_dir: PathBuf,
}

impl TextSource {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            choice: config.model.text_encoder,
            dir: config.model.text_encoder_dir.clone(),
            cache_dir: default_cache_dir(),
        }
    }

    /// Whether the folder that the operator named, if any, has the files of an encoder; they are not read.
    ///
    /// # Errors
    /// It has not.
    pub fn check_folder(&self) -> Result<(), TextSourceError> {
        match self.choice {
            TextEncoderChoice::Small => Ok(()),
            TextEncoderChoice::Auto | TextEncoderChoice::Pretrained => {
                named_folder(self).map(|_| ())
            }
        }
    }

    /// Where pretrained files are looked for.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let cached = || fetch::folder(&self.cache_dir);
        self.dir.clone().unwrap_or_else(cached)
    }
}

/// Why no encoder came out.
#[derive(Debug, thiserror::Error)]
pub enum TextSourceError {
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than any encoder that is supported.
    #[error("file has {actual} bytes, at most {bytes_max} are read: {}", path.display())]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// Its size.
        actual: u64,
        /// What is allowed.
        bytes_max: u64,
    },
    /// A downloaded file is not the one that was published.
    #[error("file has SHA-256 {actual}, expected {expected}: {}", path.display())]
    Checksum {
        /// Which one.
        path: PathBuf,
        /// The pinned hash.
        expected: String,
        /// Its hash.
        actual: String,
    },
    /// A part of a request to a hub is not what hubs have.
    #[error("{field} is {value:?}, expected {expected}")]
    Request {
        /// Which part.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        expected: &'static str,
    },
    /// The hub cannot be reached, or broke off.
    #[error("download failed: {url}")]
    Http {
        /// What was asked for.
        url: String,
        /// What the client said.
        source: Box<reqwest::Error>,
    },
    /// The hub does not give a file.
    #[error("the hub answered {status}: {url}")]
    Status {
        /// What it said.
        status: u16,
        /// What was asked for.
        url: String,
    },
    /// The weights file is damaged or not in the safetensors format.
    #[error("weights are not readable: {reason}: {}", path.display())]
    Weights {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A weight is not stored as f32.
    #[error("tensor {tensor} is stored as {dtype}, only F32 is read")]
    Dtype {
        /// Its name.
        tensor: String,
        /// How it is stored.
        dtype: String,
    },
    /// The files do not make an encoder.
    #[error("files do not make a text encoder: {}", dir.display())]
    Unusable {
        /// Their folder.
        dir: PathBuf,
        /// What is wrong with them.
        source: TextError,
    },
    /// The folder that the operator named is not one of an encoder.
    #[error("no text encoder in {dir:?}, expected a folder with {}", files::FILES.map(|file| file.name).join(", "))]
    NotInFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The pretrained encoder is asked for and its files are nowhere.
    #[error("no pretrained text encoder in {looked_in:?}; `{FETCH_COMMAND}` downloads one")]
    Missing {
        /// The folder that was looked at.
        looked_in: PathBuf,
    },
    /// The encoder is to learn and has nothing that could.
    #[error(
        "`text_tuning.steps` is {steps}, expected 0: no pretrained text encoder was found, and the small one has \
         no weights; `{FETCH_COMMAND}` downloads one"
    )]
    NothingToTune {
        /// Steps asked for.
        steps: u32,
    },
    /// A program needed for the download did not start.
    #[error("cannot run {program}, which the download needs")]
    ProgramMissing {
        /// Which one.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program needed for the download failed.
    #[error("{command} failed: {stderr}")]
    ProgramFailed {
        /// What was run.
        command: String,
        /// The end of what it wrote to its error output.
        stderr: String,
    },
    /// The download holds something else than expected.
    #[error("download holds no {what}")]
    DownloadIncomplete {
        /// What is missing.
        what: String,
    },
    /// The file of embedded rows cannot be used.
    #[error("embedding cache cannot be used: {}", path.display())]
    Cache {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        source: Box<redb::Error>,
    },
}

/// Loads the encoder that the configuration asks for, with a spinner where there is a terminal.
///
/// # Errors
/// As [`load`], or the encoder is to learn and is the small one.
pub fn from_config(config: &Config, device: &Device) -> Result<AnyTextEncoder, TextSourceError> {
    let source = TextSource::of(config);
    let progress = spinner();
    let encoder = load(&source, device, &progress);
    progress.finish_and_clear();
    let encoder = encoder?;
    check_tunable(config.text_tuning.steps, &encoder)?;
    Ok(encoder)
}

/// Whether an encoder that is to learn for `steps` can.
fn check_tunable(steps: u32, encoder: &AnyTextEncoder) -> Result<(), TextSourceError> {
    if steps > 0 && encoder.as_bert().is_none() {
        return Err(TextSourceError::NothingToTune { steps });
    }
    Ok(())
}

/// Loads an encoder onto `device`. Nothing is downloaded here.
///
/// # Errors
/// Files that are there and damaged, or the pretrained encoder asked for and not there.
pub fn load(
    source: &TextSource,
    device: &Device,
    progress: &ProgressBar,
) -> Result<AnyTextEncoder, TextSourceError> {
    let small = AnyTextEncoder::Small(SmallTextEncoder);
    if source.choice == TextEncoderChoice::Small {
        return Ok(small);
    }
    if let Some(encoder) = load_pretrained(source, device, progress)? {
        return Ok(encoder);
    }
    if source.choice == TextEncoderChoice::Pretrained {
        return Err(TextSourceError::Missing {
            looked_in: source.folder(),
        });
    }
    tracing::warn!(
        command = FETCH_COMMAND,
        "no pretrained text encoder found, so texts are matched by shared words only; `{FETCH_COMMAND}` downloads one"
    );
    Ok(small)
}

/// `$FRESHET_CACHE`, else `~/.cache/freshet`, else a folder among the temporary files.
#[must_use]
pub fn default_cache_dir() -> PathBuf {
    match (std::env::var_os("FRESHET_CACHE"), std::env::home_dir()) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(home)) => home.join(".cache").join("freshet"),
        (None, None) => std::env::temp_dir().join("freshet-cache"),
    }
}

/// A spinner that turns while something blocks; invisible without a terminal.
#[must_use]
pub fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(120));
    progress
}

fn load_pretrained(
    source: &TextSource,
    device: &Device,
    progress: &ProgressBar,
) -> Result<Option<AnyTextEncoder>, TextSourceError> {
    let load = |(dir, trust): (PathBuf, _)| files::load_folder(&dir, trust, device, progress);
    found(source)?.map(load).transpose()
}

/// The folder that the operator named, where there is one.
fn named_folder(source: &TextSource) -> Result<Option<&Path>, TextSourceError> {
    let Some(dir) = source.dir.as_deref() else {
        return Ok(None);
    };
    if files::is_complete(dir) {
        return Ok(Some(dir));
    }
    Err(TextSourceError::NotInFolder {
        dir: dir.to_owned(),
    })
}

/// Files of the pretrained encoder where they are found, in the order of [`load`]; `None` where they are nowhere.
///
/// # Errors
/// Files that are there and damaged.
pub fn read_pretrained(source: &TextSource) -> Result<Option<EncoderFiles>, TextSourceError> {
    let is_wanted = |name: &str| !shared_model::text::parameters::is_unused(name);
    let read = |(dir, trust): (PathBuf, _)| files::read_all(&dir, trust, is_wanted);
    found(source)?.map(read).transpose()
}

/// Its `tokenizer.json` alone, likewise.
///
/// # Errors
/// A file that is there and damaged.
pub fn read_tokenizer(source: &TextSource) -> Result<Option<Vec<u8>>, TextSourceError> {
    let read = |(dir, trust): (PathBuf, _)| files::read(&dir, files::TOKENIZER, trust);
    found(source)?.map(read).transpose()
}

/// The folder of the pretrained encoder, and who vouches for it.
fn found(source: &TextSource) -> Result<Option<(PathBuf, files::Trust)>, TextSourceError> {
    if let Some(dir) = named_folder(source)? {
        return Ok(Some((dir.to_owned(), files::Trust::Operator)));
    }
    let cached = fetch::folder(&source.cache_dir);
    Ok(files::is_complete(&cached).then_some((cached, files::Trust::Pinned)))
}

/// The three files of a folder that the operator named, with the tensors that are wanted by name.
///
/// # Errors
/// One is missing, too large or damaged.
pub fn read_encoder_files(
    dir: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<EncoderFiles, TextSourceError> {
    files::read_all(dir, files::Trust::Operator, is_wanted)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> TextSourceError + '_ {
    move |source| TextSourceError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_without_weights_is_refused_where_it_is_to_learn() {
        let small = AnyTextEncoder::Small(SmallTextEncoder);
        assert!(check_tunable(0, &small).is_ok());
        let refused = check_tunable(20, &small).expect_err("nothing to tune");
        let message = refused.to_string();
        assert!(message.contains("`text_tuning.steps` is 20"), "{message}");
    }
}
