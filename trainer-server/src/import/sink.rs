//! Where imported lines go: into a log that this process holds, or to a server over HTTP.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use shared_model::event::Item;
use shared_model::ids::ItemId;

use super::{Content, ImportError, Record, Refusal, Report};
use crate::catalogue::Catalogue;
use crate::event_log::{AppendOutcome, EventLog, LogRecord, StoredEvent};
use crate::ingest::{EventRules, Fault, event_from_json, item_from_json};

/// Lines per transaction of a log that no one else uses: large, because each costs one sync.
const LOG_BATCH_LEN: usize = 5000;
/// Lines per request: below the default limit of a server.
const HTTP_BATCH_LEN: usize = 500;
/// Times that a request is sent while the server is overloaded.
const NUM_TRIES: u32 = 10;

/// Where lines go.
pub enum Sink {
    /// A log in this process.
    Log(LogSink),
    /// A server.
    Server(ServerSink),
}

/// A log in this process and what is needed to check lines against.
pub struct LogSink {
    /// The log.
    pub log: EventLog,
    /// Its catalogue.
    pub catalogue: Catalogue,
    /// See [`EventRules::future_millis_max`].
    pub future_millis_max: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
}

/// A server at a URL without a slash at its end.
pub struct ServerSink {
    /// The client.
    pub client: reqwest::Client,
    /// Its address, for example `http://127.0.0.1:7878`.
    pub url: String,
}

#[derive(Deserialize)]
struct Answer {
    accepted: u64,
    #[serde(default)]
    duplicates: u64,
    #[serde(default)]
    unchanged: u64,
    rejected: Vec<AnsweredRejection>,
}

#[derive(Deserialize)]
struct AnsweredRejection {
    index: usize,
    code: String,
    detail: String,
}

impl Sink {
    /// Lines that are sent together.
    #[must_use]
    pub fn batch_len_max(&self) -> usize {
        match self {
            Self::Log(_) => LOG_BATCH_LEN,
            Self::Server(_) => HTTP_BATCH_LEN,
        }
    }

    /// Sends a batch and adds what became of it to the report.
    pub(super) async fn send(
        &mut self,
        content: Content,
        batch: Vec<Record>,
        report: &mut Report,
    ) -> Result<(), ImportError> {
        match self {
            Self::Log(sink) => sink.send(content, &batch, report).await,
            Self::Server(sink) => sink.send(content, batch, report).await,
        }
    }
}

impl LogSink {
    async fn send(
        &mut self,
        content: Content,
        batch: &[Record],
        report: &mut Report,
    ) -> Result<(), ImportError> {
        let now_millis = (self.clock)();
        let mut records = Vec::with_capacity(batch.len());
        for record in batch {
            let checked = match content {
                Content::Items => item_from_json(&record.value, "").map(LogRecord::ItemPut),
                Content::Events => self.check_event(&record.value, now_millis),
            };
            match checked {
                Ok(LogRecord::ItemPut(item)) if self.is_unchanged(&item) => report.duplicates += 1,
                Ok(checked) => records.push(checked),
                Err(fault) => report.refuse(refusal(record.line, fault)),
            }
        }
        let outcomes = self.log.append(records.clone()).await?;
        for (record, outcome) in records.into_iter().zip(outcomes) {
            match (outcome, record) {
                (AppendOutcome::Duplicate(_), _) => report.duplicates += 1,
                (AppendOutcome::Accepted(offset), record) => {
                    report.accepted += 1;
                    if let LogRecord::ItemPut(item) = record {
                        self.catalogue.put(offset, item);
                    }
                }
            }
        }
        Ok(())
    }

    fn is_unchanged(&self, item: &Item) -> bool {
        self.catalogue
            .get(&item.item_id)
            .is_some_and(|present| *present == *item)
    }

    fn check_event(&self, value: &Value, now_millis: i64) -> Result<LogRecord, Fault> {
        let is_known = |item_id: &ItemId| self.catalogue.contains(item_id);
        let rules = EventRules {
            is_known: &is_known,
            now_millis,
            future_millis_max: self.future_millis_max,
            skew_millis: 0,
        };
        let event = rules.check(event_from_json(value, "")?, "")?;
        Ok(LogRecord::Event(StoredEvent {
            event,
            received_at: now_millis,
            is_vouched: false,
        }))
    }
}

fn refusal(line: usize, fault: Fault) -> Refusal {
    let field = fault.pointer.trim_start_matches('/');
    let detail = match field {
        "" => fault.detail,
        field => format!("{field}: {}", fault.detail),
    };
    Refusal {
        line,
        code: fault.code.as_str().to_owned(),
        detail,
    }
}

impl ServerSink {
    async fn send(
        &self,
        content: Content,
        batch: Vec<Record>,
        report: &mut Report,
    ) -> Result<(), ImportError> {
        let (lines, values): (Vec<usize>, Vec<Value>) = batch
            .into_iter()
            .map(|record| (record.line, record.value))
            .unzip();
        let answer = self.request(content, values).await?;
        report.accepted += answer.accepted;
        report.duplicates += answer.duplicates + answer.unchanged;
        for rejected in answer.rejected {
            let line = lines.get(rejected.index).copied().unwrap_or_default();
            report.refuse(Refusal {
                line,
                code: rejected.code,
                detail: rejected.detail,
            });
        }
        Ok(())
    }

    /// Sends until the server takes the batch; sending twice is safe, events and items are idempotent.
    async fn request(&self, content: Content, values: Vec<Value>) -> Result<Answer, ImportError> {
        let (request, body) = match content {
            Content::Items => (
                self.client.put(format!("{}/v1/items", self.url)),
                json!({ "items": values }),
            ),
            Content::Events => (
                self.client.post(format!("{}/v1/events", self.url)),
                json!({ "events": values }),
            ),
        };
        let request = request.json(&body).build()?;
        for num_tries in 1.. {
            let copy = request.try_clone().expect("a body in memory can be copied");
            let response = self.client.execute(copy).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response.json().await?);
            }
            let is_overload = status.as_u16() == 503 || status.as_u16() == 429;
            if !is_overload || num_tries == NUM_TRIES {
                let body = response.text().await?;
                return Err(ImportError::Refused {
                    status: status.as_u16(),
                    body,
                });
            }
            let secs = retry_after_secs(&response);
            tokio::time::sleep(Duration::from_secs(secs)).await;
        }
        unreachable!("the loop ends by its last try")
    }
}

fn retry_after_secs(response: &reqwest::Response) -> u64 {
    let header = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok());
    let secs = header.and_then(|text| text.parse().ok()); // anything else than seconds: the default
    secs.unwrap_or(1_u64).min(30)
}
