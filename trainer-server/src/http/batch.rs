//! Bodies of events and items: one JSON document or one JSON value on each line (NDJSON), as they are or compressed
//! with gzip or zstd.
//!
//! `server.body_bytes_max` holds for the bytes that arrive and for what they decompress to: a bomb is stopped there.
//! Not here: what an element must look like (`ingest`).

use std::io::{self, Read};

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, header};
use flate2::read::MultiGzDecoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::JsonBytes;
use super::document::Operation;
use super::{AppState, Problem};
use crate::ingest::{self, BodyError, Elements, Rejection};

const LINES_TYPE: &str = "application/x-ndjson";
/// Largest window of zstd, 8 MiB: what RFC 8878 wants every decoder to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A body that was not parsed yet.
pub(super) struct BatchBody {
    bytes: Bytes,
    encoding: Encoding,
    has_lines: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The elements of a body and where they stand.
pub(super) struct Batch {
    pub(super) elements: Elements,
    /// JSON pointer of what holds them.
    parent: String,
    has_lines: bool,
}

/// What the answer to NDJSON says of each line that is not blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Stored.
    Accepted,
    /// An event that was stored before.
    Duplicate,
    /// An item that is just so already.
    Unchanged,
    /// See `rejected`.
    Rejected,
}

/// What may stand behind the `?` of a batch.
#[derive(Deserialize, JsonSchema)]
pub(super) struct BatchQuery {
    /// Answers with the same verdicts and keeps nothing; `offset` is the end of the log then.
    #[schemars(with = "Option<bool>", extend("default" = false))]
    dry_run: Option<String>,
}

impl Operation<'_> {
    /// A body that [`BatchBody`] reads; `element` is what it is a batch of.
    pub(super) fn batch_body<T: JsonSchema>(self, element: &str, example: Value) -> Self {
        let lines = format!(
            "JSON of one {element} on each line. Blank lines are skipped; `index` and the first part of a pointer are \
             the number of the line among the others, from 0."
        );
        self.json_body::<T>(example)
            .text_body(LINES_TYPE, &lines)
            .body_words(
                "May be compressed, with `Content-Encoding: gzip` or `zstd`; the limit of its bytes holds before and after \
                 decompression.",
            )
    }
}

impl BatchQuery {
    /// Whether the sender wants to know what would become of its batch, and nothing kept.
    pub(super) fn is_dry_run(&self) -> Result<bool, Problem> {
        match self.dry_run.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let detail = format!("expected true or false, found {other}");
                Err(Problem::invalid_query("dry_run", detail))
            }
        }
    }
}

impl FromRequest<AppState> for BatchBody {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &AppState) -> Result<Self, Problem> {
        let headers = request.headers_mut();
        let encoding = Encoding::from_headers(headers)?;
        let content_type = text_of(headers, header::CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let has_lines = essence.eq_ignore_ascii_case(LINES_TYPE);
        headers.remove(header::CONTENT_ENCODING);
        if has_lines {
            headers.remove(header::CONTENT_TYPE);
        }
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        Ok(Self {
            bytes,
            encoding,
            has_lines,
        })
    }
}

impl BatchBody {
    /// Bytes to work on, as far as one can tell before.
    pub(super) fn num_bytes(&self) -> usize {
        match self.encoding {
            Encoding::Identity => self.bytes.len(),
            Encoding::Gzip | Encoding::Zstd => usize::MAX,
        }
    }

    /// Decompresses and splits; `name` is that of the list in a JSON document.
    pub(super) fn read(&self, name: &str, bytes_max: usize) -> Result<Batch, Problem> {
        let decoded = self.encoding.decode(&self.bytes, bytes_max)?;
        let bytes = decoded.as_deref().unwrap_or(&self.bytes);
        let (elements, parent) = if self.has_lines {
            (ingest::lines(bytes), String::new())
        } else {
            let elements = ingest::elements(bytes, name).map_err(Problem::malformed_body)?;
            (elements, format!("/{name}"))
        };
        Ok(Batch {
            elements,
            parent,
            has_lines: self.has_lines,
        })
    }
}

impl Batch {
    /// JSON pointer of an element.
    pub(super) fn pointer(&self, element_idx: usize) -> String {
        format!("{}/{element_idx}", self.parent)
    }

    /// The verdicts, where the answer is to list them.
    pub(super) fn listed(&self, verdicts: impl FnOnce() -> Vec<Verdict>) -> Option<Vec<Verdict>> {
        self.has_lines.then(verdicts)
    }
}

impl Encoding {
    fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let name = text_of(headers, header::CONTENT_ENCODING).unwrap_or("identity");
        let known = [
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("zstd", Self::Zstd),
        ];
        let found = known
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
        found.map(|(_, encoding)| encoding).ok_or_else(|| {
            let detail = format!("expected the content encoding gzip or zstd, found {name}");
            Problem::unsupported_media_type(detail)
        })
    }

    /// The bytes behind `bytes`; `None` where they are as they are.
    fn decode(self, bytes: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, Problem> {
        let read = match self {
            Self::Identity => return Ok(None),
            Self::Gzip => read_within(MultiGzDecoder::new(bytes), bytes_max),
            Self::Zstd => zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                read_within(decoder, bytes_max)
            }),
        };
        let decoded = read.map_err(|error| {
            Problem::malformed_body(BodyError {
                pointer: String::new(),
                detail: format!("the compressed body is damaged: {error}"),
            })
        })?;
        if decoded.len() > bytes_max {
            let detail = format!("at most {bytes_max} bytes are allowed once decompressed");
            return Err(Problem::too_large(detail));
        }
        Ok(Some(decoded))
    }
}

/// One byte more than allowed at most.
fn read_within(reader: impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = (bytes_max as u64).saturating_add(1); // widening on every supported target
    reader.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A header that is no text is none that anyone knows.
fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    Some(headers.get(name)?.to_str().unwrap_or("?"))
}

/// The verdicts on all elements of which `rejected` were refused; `others` has those on the rest, in order.
pub(super) fn verdicts(
    num_elements: usize,
    rejected: &[Rejection],
    others: impl IntoIterator<Item = Verdict>,
) -> Vec<Verdict> {
    let mut verdicts = vec![None; num_elements];
    for rejection in rejected {
        verdicts[rejection.index] = Some(Verdict::Rejected);
    }
    let mut others = others.into_iter();
    let verdict = |verdict: Option<Verdict>| verdict.or_else(|| others.next());
    verdicts.into_iter().filter_map(verdict).collect()
}
