//! Claims about importing files into a log.

use super::sink::LogSink;
use super::*;
use crate::catalogue::Catalogue;
use crate::event_log::{EventLog, EventLogConfig};
use shared_model::ids::LogOffset;

const NOW_MILLIS: i64 = 1_800_000_000_000;

fn sink(dir: &tempfile::TempDir) -> (EventLog, Sink) {
    let config = EventLogConfig::from(&crate::config::Config::default());
    let log = EventLog::open(dir.path(), &config).expect("opens");
    let sink = LogSink {
        log: log.clone(),
        catalogue: Catalogue::from_log(&log).expect("rebuilt"),
        future_millis_max: 300_000,
        clock: || NOW_MILLIS,
    };
    (log, Sink::Log(sink))
}

async fn import_text(sink: &mut Sink, content: Content, text: &str) -> Report {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), text).expect("written");
    import(file.path(), content, sink, |_| {})
        .await
        .expect("imported")
}

const ITEMS: &str = "item_id\ttitle\tmedian_price\n1\tTea pot\t0.85\n2\tBalloons\t0.65\n";
const EVENTS: &str = "user_id\titem_id\tquantity\ttimestamp\n\
    7\t1\t8\t1291191960\n7\t1\t8\t1291191960\n8\t9\t1\t1291191961\n8\t2\tx\t1291191962\n";

#[tokio::test]
async fn importing_twice_adds_nothing_and_names_refused_lines() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (log, mut sink) = sink(&dir);
    let items = import_text(&mut sink, Content::Items, ITEMS).await;
    assert_eq!((items.accepted, items.num_refused()), (2, 0));

    let first = import_text(&mut sink, Content::Events, EVENTS).await;
    assert_eq!((first.accepted, first.duplicates), (2, 0));
    let named: Vec<_> = first
        .named
        .iter()
        .map(|named| (named.line, named.code.as_str()))
        .collect();
    assert_eq!(named, [(5, "malformed"), (4, "unknown_item")]);

    let second = import_text(&mut sink, Content::Events, EVENTS).await;
    assert_eq!(
        (second.accepted, second.duplicates, second.num_refused()),
        (0, 2, 2)
    );
    assert_eq!(
        import_text(&mut sink, Content::Items, ITEMS)
            .await
            .duplicates,
        2
    );
    assert_eq!(log.end(), LogOffset(4));
}

#[tokio::test]
async fn json_lines_are_told_apart_by_their_first_character() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (_log, mut sink) = sink(&dir);
    let items =
        "\u{feff}{\"item_id\": \"1\", \"title\": \"Tea pot\"}\n\n{\"item_id\": \"2\"}\nnot json\n";
    let report = import_text(&mut sink, Content::Items, items).await;
    assert_eq!(report.accepted, 1);
    let lines: Vec<_> = report.named.iter().map(|named| named.line).collect();
    assert_eq!(lines, [4, 3]);
}

#[tokio::test]
async fn a_header_without_a_needed_column_is_an_error() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (_log, mut sink) = sink(&dir);
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), "user_id\titem_id\n").expect("written");
    let error = import(file.path(), Content::Events, &mut sink, |_| {})
        .await
        .expect_err("no time");
    assert!(
        matches!(
            error,
            ImportError::MissingColumn {
                column: "timestamp",
                ..
            }
        ),
        "{error}"
    );
}
