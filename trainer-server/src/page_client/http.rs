//! The requests a page makes, with a limit on every answer.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use reqwest::{Response, StatusCode};
use shared_model::edge::report::FaultReport;
use shared_model::edge::sync::EdgeRequest;
use shared_model::ids::Version;
use shared_model::manifest::{KEY_LIST_BYTES_MAX, ManifestError, PLAN_BYTES_MAX, parse_key_list};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the server is, and which of its models a page follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Scheme, host and port, without a slash at the end.
    pub url: String,
    /// Name of the model.
    pub model: String,
}

impl ServerAddress {
    /// Takes a URL with or without a slash at the end.
    #[must_use]
    pub fn new(url: &str, model: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            model: model.to_owned(),
        }
    }

    /// URL of a path that starts with a slash.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn model_path(&self, path: &str) -> String {
        format!("{}/v1/models/{}{path}", self.url, self.model)
    }
}

/// Why a page could not get something.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// No connection, a broken one, or no answer in time.
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
    /// An answer other than 200.
    #[error("the server answered {status}: {url}")]
    Status {
        /// What it said.
        status: StatusCode,
        /// To which request.
        url: String,
    },
    /// An answer longer than announced or allowed.
    #[error("the answer is longer than {max} bytes: {url}")]
    TooLong {
        /// The limit.
        max: usize,
        /// To which request.
        url: String,
    },
    /// A key list that cannot be read.
    #[error(transparent)]
    Keys(#[from] ManifestError),
}

pub(super) fn client() -> Result<reqwest::Client, PageError> {
    Ok(reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy()
        .build()?)
}

/// Opens the event stream, which has no end.
pub(super) async fn watch(
    http: &reqwest::Client,
    address: &ServerAddress,
    bucket: Option<u8>,
) -> Result<Response, PageError> {
    let url = address.model_path(&format!("/watch{}", query(None, bucket)));
    let response = http
        .get(&url)
        .header("accept", "text/event-stream")
        .send()
        .await?;
    check_status(response, url)
}

pub(super) async fn fetch(
    http: &reqwest::Client,
    address: &ServerAddress,
    request: &EdgeRequest,
    bucket: Option<u8>,
) -> Result<Vec<u8>, PageError> {
    match request {
        EdgeRequest::KeySet => get(http, address.model_path("/keys"), KEY_LIST_BYTES_MAX).await,
        EdgeRequest::Plan { base } => {
            let path = format!("/plan{}", query(*base, bucket));
            get(http, address.model_path(&path), PLAN_BYTES_MAX).await
        }
        EdgeRequest::Blob { blob } => {
            let bytes_max = usize::try_from(blob.bytes).unwrap_or(usize::MAX); // the sync machine bounds it
            get(
                http,
                address.path(&format!("/v1/blobs/{}", blob.id)),
                bytes_max,
            )
            .await
        }
    }
}

/// What a page says of itself: the version at hand, and its bucket.
fn query(base: Option<Version>, bucket: Option<u8>) -> String {
    let base = base.map(|base| format!("base={base}"));
    let bucket = bucket.map(|bucket| format!("bucket={bucket}"));
    let parts: Vec<String> = base.into_iter().chain(bucket).collect();
    if parts.is_empty() {
        return String::new();
    }
    format!("?{}", parts.join("&"))
}

/// Tells the server of a version that this page could not take.
pub(super) async fn report(
    http: &reqwest::Client,
    address: &ServerAddress,
    report: &FaultReport,
) -> Result<(), PageError> {
    let url = address.model_path("/reports");
    let request = http.post(&url).timeout(FETCH_TIMEOUT).json(report);
    let response = request.send().await?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(PageError::Status { status, url }),
    }
}

/// The server's public keys, and the size of the answer.
pub(super) async fn fetch_keys(
    http: &reqwest::Client,
    address: &ServerAddress,
) -> Result<(Vec<VerifyingKey>, u64), PageError> {
    let bytes = get(http, address.model_path("/keys"), PLAN_BYTES_MAX).await?;
    Ok((parse_key_list(&bytes)?, bytes.len() as u64)) // usize fits u64
}

async fn get(http: &reqwest::Client, url: String, bytes_max: usize) -> Result<Vec<u8>, PageError> {
    let response = http.get(&url).timeout(FETCH_TIMEOUT).send().await?;
    let mut response = check_status(response, url.clone())?;
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if bytes.len() + piece.len() > bytes_max {
            return Err(PageError::TooLong {
                max: bytes_max,
                url,
            });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn check_status(response: Response, url: String) -> Result<Response, PageError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(PageError::Status { status, url }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_slash() {
        let address = ServerAddress::new("http://127.0.0.1:1/", "main");
        assert_eq!(
            address.model_path("/plan"),
            "http://127.0.0.1:1/v1/models/main/plan"
        );
        assert_eq!(address.path("/healthz"), "http://127.0.0.1:1/healthz");
    }

    #[test]
    fn a_page_says_its_version_and_its_bucket_where_it_has_them() {
        let version = Some(Version(7));
        assert_eq!(query(None, None), "");
        assert_eq!(query(version, None), "?base=7");
        assert_eq!(query(None, Some(0)), "?bucket=0");
        assert_eq!(query(version, Some(99)), "?base=7&bucket=99");
    }
}
