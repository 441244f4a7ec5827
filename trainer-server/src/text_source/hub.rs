//! Downloads an encoder from a hub that lays files out as Hugging Face's does: `URL/MODEL/resolve/REVISION/FILE`.
//!
//! ```text
//! announced size checked ─► streamed into .unfinished-…/ (counted, hashed) ─► pins compared
//!                        ─► read as an encoder ─► folder renamed to its final name
//! ```
//! A folder of that name is therefore always complete. The HTTP client has no TLS, so an `https` hub is
//! reached through a mirror or proxy of your own; what makes a download trustworthy are the pinned digests.
//! Not here: all-MiniLM-L6-v2 from a Python wheel (`fetch`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::files::{self, FILES, PretrainedFile, Trust};
use super::{TextSourceError, io_error};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte for so long, a download is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest name of a model or a revision, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// What to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRequest {
    /// Start of every address, for example `http://mirror.example`.
    pub url: String,
    /// `owner/name` or `name`.
    pub model: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Digests that files must have, as `(name, hexadecimal SHA-256)`.
    pub pinned: Vec<(String, String)>,
}

/// A file as it was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub num_bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Downloads an encoder into a folder of `cache_dir`; gives the folder and what is in it.
///
/// # Errors
/// A name is refused, the hub does not give a file, a file is larger than any that is supported or has
/// another digest than pinned, the files make no encoder, or the folder cannot be written.
pub async fn fetch_from_hub(
    request: &HubRequest,
    cache_dir: &Path,
    progress: &ProgressBar,
) -> Result<(PathBuf, Vec<HubFile>), TextSourceError> {
    check(request)?;
    fs::create_dir_all(cache_dir).map_err(io_error(cache_dir))?;
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(cache_dir)
        .map_err(io_error(cache_dir))?;
    let ready = unfinished.path().join("ready");
    fs::create_dir(&ready).map_err(io_error(&ready))?;
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(http_error(&request.url))?;
    let mut fetched = Vec::with_capacity(FILES.len());
    for file in FILES {
        let url = address(request, file);
        progress.set_message(format!("downloading {}", file.name));
        let found = download(&http, &url, file, &ready, progress).await?;
        check_pin(request, &found, &ready)?;
        fetched.push(found);
    }
    // Only what makes an encoder gets the name of one.
    files::load_folder(&ready, Trust::Operator, &Device::flex(), progress)?;
    let target = cache_dir.join(folder_name(request));
    if target.exists() {
        fs::remove_dir_all(&target).map_err(io_error(&target))?;
    }
    files::rename(&ready, &target)?;
    files::sync(cache_dir)?;
    Ok((target, fetched))
}

/// One folder per model and revision.
fn folder_name(request: &HubRequest) -> String {
    let model = request.model.replace('/', "--");
    format!("hub--{model}--{}", request.revision)
}

fn address(request: &HubRequest, file: PretrainedFile) -> String {
    let HubRequest {
        url,
        model,
        revision,
        ..
    } = request;
    let url = url.trim_end_matches('/');
    format!("{url}/{model}/resolve/{revision}/{}", file.name)
}

/// Names become parts of addresses and of a folder, so they are held to the letters that hubs use.
fn check(request: &HubRequest) -> Result<(), TextSourceError> {
    let refuse = |field, value: &str, expected| {
        Err(TextSourceError::Request {
            field,
            value: value.to_owned(),
            expected,
        })
    };
    if !request.url.starts_with("http://") {
        let expected = "an address that starts with http://";
        return refuse("hub", &request.url, expected);
    }
    let parts: Vec<&str> = request.model.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_plain(part)) {
        return refuse("model", &request.model, "NAME or OWNER/NAME");
    }
    if !is_plain(&request.revision) {
        return refuse("revision", &request.revision, "a branch, tag or commit");
    }
    for (name, digest) in &request.pinned {
        if !FILES.iter().any(|file| file.name == name) {
            let expected = "config.json, tokenizer.json or model.safetensors";
            return refuse("sha256", name, expected);
        }
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return refuse("sha256", digest, "64 hexadecimal digits");
        }
    }
    Ok(())
}

fn is_plain(part: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&part.len())
        && part.bytes().all(is_allowed)
        && !part.starts_with('.')
}

/// Streams a file into `dir`, never more of it than its bound.
async fn download(
    http: &reqwest::Client,
    url: &str,
    file: PretrainedFile,
    dir: &Path,
    progress: &ProgressBar,
) -> Result<HubFile, TextSourceError> {
    let response = http.get(url).send().await.map_err(http_error(url))?;
    if !response.status().is_success() {
        return Err(TextSourceError::Status {
            status: response.status().as_u16(),
            url: url.to_owned(),
        });
    }
    let path = dir.join(file.name);
    let too_large = |actual| TextSourceError::TooLarge {
        path: path.clone(),
        actual,
        bytes_max: file.bytes_max,
    };
    let announced = response.content_length();
    if let Some(actual) = announced.filter(|len| *len > file.bytes_max) {
        return Err(too_large(actual));
    }
    progress.set_length(announced.unwrap_or(0));
    progress.set_position(0);
    let mut response = response;
    let mut hasher = Sha256::new();
    let mut num_bytes = 0_u64;
    let created = tokio::fs::File::create(&path).await;
    let mut written = created.map_err(io_error(&path))?;
    while let Some(chunk) = response.chunk().await.map_err(http_error(url))? {
        num_bytes += chunk.len() as u64; // usize fits u64
        if num_bytes > file.bytes_max {
            return Err(too_large(num_bytes));
        }
        hasher.update(&chunk);
        written.write_all(&chunk).await.map_err(io_error(&path))?;
        progress.set_position(num_bytes);
    }
    written.sync_all().await.map_err(io_error(&path))?;
    let digest = hasher.finalize();
    Ok(HubFile {
        name: file.name,
        num_bytes,
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

fn check_pin(request: &HubRequest, found: &HubFile, dir: &Path) -> Result<(), TextSourceError> {
    let mut pins = request.pinned.iter();
    let Some((_, expected)) = pins.find(|(name, _)| name == found.name) else {
        return Ok(());
    };
    if expected.eq_ignore_ascii_case(&found.sha256) {
        return Ok(());
    }
    Err(TextSourceError::Checksum {
        path: dir.join(found.name),
        expected: expected.clone(),
        actual: found.sha256.clone(),
    })
}

fn http_error(url: &str) -> impl FnOnce(reqwest::Error) -> TextSourceError + '_ {
    move |source| TextSourceError::Http {
        url: url.to_owned(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(model: &str) -> HubRequest {
        HubRequest {
            url: "http://127.0.0.1:1/".to_owned(),
            model: model.to_owned(),
            revision: "main".to_owned(),
            pinned: Vec::new(),
        }
    }

    #[test]
    fn addresses_follow_the_layout_of_hubs() {
        let url = address(&request("owner/name"), files::CONFIG);
        assert_eq!(
            url,
            "http://127.0.0.1:1/owner/name/resolve/main/config.json"
        );
        assert_eq!(
            folder_name(&request("owner/name")),
            "hub--owner--name--main"
        );
    }

    #[test]
    fn names_that_leave_their_place_are_refused() {
        assert!(check(&request("owner/name-1.5_x")).is_ok());
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for model in [
            "", "..", "a/../b", "/a", "a/", "a b", "a?b", ".hidden", &long,
        ] {
            let refused = check(&request(model));
            assert!(
                matches!(
                    refused,
                    Err(TextSourceError::Request { field: "model", .. })
                ),
                "{model}"
            );
        }
        let field = |request: HubRequest| match check(&request) {
            Err(TextSourceError::Request { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let url = "https://hub.example".to_owned();
        assert_eq!(
            field(HubRequest {
                url,
                ..request("a")
            }),
            "hub"
        );
        let revision = "../main".to_owned();
        assert_eq!(
            field(HubRequest {
                revision,
                ..request("a")
            }),
            "revision"
        );
        let pinned = vec![("vocab.txt".to_owned(), "0".repeat(64))];
        assert_eq!(
            field(HubRequest {
                pinned,
                ..request("a")
            }),
            "sha256"
        );
        let pinned = vec![("config.json".to_owned(), "0".repeat(63))];
        assert_eq!(
            field(HubRequest {
                pinned,
                ..request("a")
            }),
            "sha256"
        );
    }
}
