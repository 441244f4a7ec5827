//! Where imported rows go: into a log that this process holds, or to a server over HTTP.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use shared_model::event::Item;
use shared_model::ids::{ItemId, LogOffset};

use super::report::hash_of;
use super::{Content, ImportError, Record, Refusal, Report};
use crate::catalogue::Catalogue;
use crate::event_log::{AppendOutcome, EventLog, LogRecord};
use crate::experiment::store::Experiments;
use crate::ingest::{EventRules, Fault, event_from_json, item_from_json};
use crate::pseudonyms::Pseudonyms;

/// Rows per transaction of a log that no one else uses: large, because each costs one sync.
const LOG_BATCH_LEN: usize = 5000;
/// Rows per request: below the default limit of a server.
const HTTP_BATCH_LEN: usize = 500;
const HTTP_BATCH_BYTES: usize = 1_000_000;
const LOG_BATCH_BYTES: usize = 64 << 20;
/// Times that a request is sent while the server is overloaded.
const NUM_TRIES: u32 = 10;

/// Where rows go, and what of the run so far decides about the next ones.
pub struct Sink {
    target: Target,
    /// Nothing is kept; what would become of each row is told all the same.
    is_dry_run: bool,
    /// Items of this run and what was said of them: the first row of an item counts.
    items: HashMap<u64, u64>,
    /// Events of a dry run, of which the log knows nothing.
    events: HashSet<u64>,
}

/// What takes the rows.
pub enum Target {
    /// A log in this process.
    Log(LogSink),
    /// A server.
    Server(ServerSink),
}

/// A log in this process and what is needed to check rows against.
pub struct LogSink {
    /// The log.
    pub log: EventLog,
    /// Its catalogue.
    pub catalogue: Catalogue,
    /// What users are called in it.
    pub pseudonyms: Pseudonyms,
    /// What is tried on users.
    pub experiments: Experiments,
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
    /// Into the body: `/events/3/user_id`.
    pointer: String,
    detail: String,
}

impl AnsweredRejection {
    fn refusal(self, line: usize) -> Refusal {
        let field = self.pointer.splitn(4, '/').nth(3).unwrap_or_default();
        Refusal {
            line,
            detail: detail_at(field, self.detail),
            code: self.code,
        }
    }
}

fn detail_at(field: &str, detail: String) -> String {
    match field {
        "" => detail,
        field => format!("{field}: {detail}"),
    }
}

impl Sink {
    /// A sink that has seen nothing yet.
    #[must_use]
    pub fn new(target: Target, is_dry_run: bool) -> Self {
        Self {
            target,
            is_dry_run,
            items: HashMap::new(),
            events: HashSet::new(),
        }
    }

    /// Rows that are sent together.
    #[must_use]
    pub fn batch_len_max(&self) -> usize {
        match &self.target {
            Target::Log(_) => LOG_BATCH_LEN,
            Target::Server(_) => HTTP_BATCH_LEN,
        }
    }

    /// Bytes of JSON from which on rows are sent, however few they are: one row is at most 1 MiB, and a server takes 2 MiB.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        match &self.target {
            Target::Log(_) => LOG_BATCH_BYTES,
            Target::Server(_) => HTTP_BATCH_BYTES,
        }
    }

    /// Syncs and closes the log, where there is one.
    pub fn close(&self) {
        if let Target::Log(sink) = &self.target {
            sink.log.shutdown();
        }
    }

    /// Sends a batch and adds what became of it to the report.
    pub(super) async fn send(
        &mut self,
        content: Content,
        mut batch: Vec<Record>,
        report: &mut Report,
    ) -> Result<(), ImportError> {
        for record in &batch {
            report.note(content, &record.value);
        }
        batch.retain(|record| self.is_new(content, record, report));
        match &mut self.target {
            Target::Log(sink) => sink.send(content, &batch, self.is_dry_run, report).await,
            Target::Server(sink) if self.is_dry_run => {
                sink.try_out(content, &batch, &self.items, report).await
            }
            Target::Server(sink) => sink.send(content, &batch, report).await,
        }
    }

    /// Whether the run has not had a record before, which no log would tell it.
    fn is_new(&mut self, content: Content, record: &Record, report: &mut Report) -> bool {
        let id_of = |name: &str| record.value[name].as_str().map(hash_of);
        if content == Content::Items {
            let Some(item) = id_of("item_id") else {
                return true; // it will be refused
            };
            if item_from_json(&record.value, "").is_err() {
                return true; // likewise; another row may be right
            }
            let said = hash_of(&record.value.to_string());
            match self.items.insert(item, said) {
                None => return true,
                Some(first) if first == said => report.duplicates += 1,
                Some(first) => {
                    self.items.insert(item, first);
                    report.refuse(Refusal {
                        line: record.line,
                        code: "repeated_item".to_owned(),
                        detail: format!(
                            "another row says else of item {}",
                            record.value["item_id"]
                        ),
                    });
                }
            }
            return false;
        }
        let is_new = !self.is_dry_run || id_of("event_id").is_none_or(|id| self.events.insert(id));
        if !is_new {
            report.duplicates += 1;
        }
        is_new
    }
}

impl LogSink {
    async fn send(
        &mut self,
        content: Content,
        batch: &[Record],
        is_dry_run: bool,
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
                Err(fault) => report.refuse_sent(refusal(record.line, fault), &record.value),
            }
        }
        let outcomes = if is_dry_run {
            self.log.try_out(&records)?.outcomes().await?
        } else {
            self.log.append(records.clone()).await?
        };
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
        let is_vouched = true; // by the operator, who may write to the log himself
        let (experiments, offset) = (&self.experiments, LogOffset(u64::MAX)); // all phases have begun
        let door = &self.pseudonyms;
        let stored = door.stored(event, now_millis, is_vouched, experiments, offset);
        Ok(LogRecord::Event(stored))
    }
}

fn refusal(line: usize, fault: Fault) -> Refusal {
    let field = fault.pointer.trim_start_matches('/');
    Refusal {
        line,
        code: fault.code.as_str().to_owned(),
        detail: detail_at(field, fault.detail),
    }
}

impl ServerSink {
    async fn send(
        &self,
        content: Content,
        batch: &[Record],
        report: &mut Report,
    ) -> Result<(), ImportError> {
        let answer = self.request(content, batch, "").await?;
        report.accepted += answer.accepted;
        report.duplicates += answer.duplicates + answer.unchanged;
        for rejected in answer.rejected {
            if let Some(record) = batch.get(rejected.index) {
                report.refuse_sent(rejected.refusal(record.line), &record.value);
            }
        }
        Ok(())
    }

    /// As [`Self::send`], and nothing is kept; `items` are those that the server would have by now.
    async fn try_out(
        &self,
        content: Content,
        batch: &[Record],
        items: &HashMap<u64, u64>,
        report: &mut Report,
    ) -> Result<(), ImportError> {
        let answer = self.request(content, batch, "?dry_run=true").await?;
        report.accepted += answer.accepted;
        report.duplicates += answer.duplicates + answer.unchanged;
        for rejected in answer.rejected {
            let Some(record) = batch.get(rejected.index) else {
                continue;
            };
            let item_id = record.value["item_id"].as_str();
            let is_coming = item_id.is_some_and(|item_id| items.contains_key(&hash_of(item_id)));
            if rejected.code == "unknown_item" && is_coming {
                report.accepted += 1;
            } else {
                report.refuse_sent(rejected.refusal(record.line), &record.value);
            }
        }
        Ok(())
    }

    /// Sends until the server takes the batch; sending twice is safe, events and items are idempotent.
    async fn request(
        &self,
        content: Content,
        batch: &[Record],
        query: &str,
    ) -> Result<Answer, ImportError> {
        let url = format!("{}/v1/{}{query}", self.url, content.as_str());
        let request = match content {
            Content::Items => self.client.put(url),
            Content::Events => self.client.post(url),
        };
        let values: Vec<&Value> = batch.iter().map(|record| &record.value).collect();
        let body = BTreeMap::from([(content.as_str(), values)]);
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
                let problem: Value = serde_json::from_str(&body).unwrap_or_default(); // a proxy's words are none
                return Err(ImportError::Refused {
                    status: status.as_u16(),
                    detail: problem["detail"].as_str().unwrap_or(&body).to_owned(),
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
