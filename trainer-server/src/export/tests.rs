//! Claims about exported files: what was in a log is in the log that they are imported into.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::event_log::{EventLogConfig, StoredEvent};
use crate::experiment::store::Experiments;
use crate::import::sink::{LogSink, Sink, Target};
use crate::import::{Content, Mapping, Part, import};
use crate::pseudonyms::Pseudonyms;

const NOW_MILLIS: i64 = 1_800_000_000_000;

fn open(dir: &Path) -> EventLog {
    EventLog::open(dir, &EventLogConfig::from(&Config::default())).expect("opens")
}

fn stored(event: Value) -> LogRecord {
    LogRecord::Event(StoredEvent {
        event: serde_json::from_value(event).expect("an event"),
        received_at: NOW_MILLIS,
        is_vouched: true,
        arm_phase: None,
    })
}

/// A log with all that an event and an item can have.
async fn filled(dir: &Path) -> EventLog {
    let items = [
        json!({ "item_id": "a", "title": "Tea, \"blue\"", "text": "two\nlines", "available": false,
                "attributes": { "price": 3, "genres": ["x", "y"] }, "vectors": { "image": [0.5, -1.0] } }),
        json!({ "item_id": "b", "title": "Balloons" }),
    ];
    let mut records: Vec<LogRecord> = items
        .into_iter()
        .map(|item| LogRecord::ItemPut(serde_json::from_value(item).expect("an item")))
        .collect();
    records.extend([
        stored(
            json!({ "event_id": "e1", "kind": "impression", "user_id": "u,1", "item_id": "a",
                       "occurred_at": 1_700_000_000_001_i64, "impression_id": "p", "position": 3,
                       "propensity": 0.25, "model_version": 7 }),
        ),
        stored(
            json!({ "event_id": "e2", "kind": "rating", "user_id": "v", "item_id": "b",
                       "occurred_at": 1_700_000_000_002_i64, "value": 4.5 }),
        ),
        stored(
            json!({ "event_id": "e3", "kind": "click", "user_id": "v", "item_id": "b",
                       "occurred_at": 1_700_000_000_003_i64 }),
        ),
    ]);
    let log = open(dir);
    log.append(records).await.expect("appended");
    log
}

fn records(log: &EventLog) -> Vec<LogRecord> {
    let records = log.read(LogOffset(0), usize::MAX).expect("readable");
    records.into_iter().map(|(_, record)| record).collect()
}

#[tokio::test]
async fn what_is_imported_again_is_what_was_exported_in_every_format() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = filled(&dir.path().join("first")).await;
    for format in [Format::Jsonl, Format::Csv, Format::Parquet] {
        let name = format!("{format:?}");
        let log_of_copy = open(&dir.path().join(&name));
        let target = Target::Log(LogSink {
            log: log_of_copy.clone(),
            catalogue: Catalogue::from_log(&log_of_copy).expect("empty"),
            future_millis_max: 0,
            pseudonyms: Pseudonyms::default(),
            experiments: Experiments::open(&dir.path().join(&name)).expect("opens"),
            clock: || NOW_MILLIS,
        });
        let mut sink = Sink::new(target, false);
        let path = |content: &str| dir.path().join(format!("{content}-{name}"));
        assert_eq!(items(&log, &path("items"), format).expect("written"), 2);
        let filter = Filter::default();
        let num_events = events(&log, &filter, &path("events"), format, |_| {});
        assert_eq!(num_events.expect("written"), 3);
        for content in [Content::Items, Content::Events] {
            let path = path(content.as_str());
            let mut part = Part::generic(&path, content, &Mapping::default()).expect("ours");
            let report = import(&mut part, &mut sink, |_| {})
                .await
                .expect("imported");
            assert_eq!(report.num_refused(), 0, "{name}: {:?}", report.named);
        }
        assert_eq!(records(&log_of_copy), records(&log), "{name}");
    }
}

#[tokio::test]
async fn a_filter_takes_events_of_a_time_and_of_a_user() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = filled(&dir.path().join("log")).await;
    let count = |filter: Filter| {
        let path = dir.path().join("events.jsonl");
        events(&log, &filter, &path, Format::Jsonl, |_| {}).expect("written")
    };
    let middle = Filter {
        since_millis: Some(1_700_000_000_002),
        until_millis: Some(1_700_000_000_003),
        user_id: None,
    };
    assert_eq!(count(middle), 1);
    let user = Filter {
        user_id: Some(UserId::new("v").expect("valid")),
        ..Filter::default()
    };
    assert_eq!(count(user), 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_leaves_what_was_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = filled(&dir.path().join("log")).await;
    let path = dir.path().join("no-folder/events.csv");
    let error = events(&log, &Filter::default(), &path, Format::Csv, |_| {});
    assert!(matches!(error, Err(ExportError::Unwritable { .. })));
}
