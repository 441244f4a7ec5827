//! Claims about importing files into a log.

use super::sink::{LogSink, Target};
use super::*;
use crate::catalogue::Catalogue;
use crate::event_log::{EventLog, EventLogConfig};
use crate::experiment::store::Experiments;
use crate::pseudonyms::Pseudonyms;
use shared_model::ids::LogOffset;

const NOW_MILLIS: i64 = 1_800_000_000_000;

fn sink(dir: &tempfile::TempDir) -> (EventLog, Sink) {
    let config = EventLogConfig::from(&crate::config::Config::default());
    let log = EventLog::open(dir.path(), &config).expect("opens");
    let sink = LogSink {
        log: log.clone(),
        catalogue: Catalogue::from_log(&log).expect("rebuilt"),
        future_millis_max: 300_000,
        pseudonyms: Pseudonyms::default(),
        experiments: Experiments::open(dir.path()).expect("opens"),
        clock: || NOW_MILLIS,
    };
    (log, Sink::new(Target::Log(sink), false))
}

async fn import_text(sink: &mut Sink, content: Content, text: &str) -> Report {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), text).expect("written");
    let mut part = Part::generic(file.path(), content, &Mapping::default()).expect("known");
    import(&mut part, sink, |_| {}).await.expect("imported")
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

#[test]
fn a_header_without_a_needed_column_is_an_error() {
    let error = refusal_of(Content::Events, "user_id\titem_id\n", &Mapping::default());
    assert!(
        error.starts_with("no column `timestamp`, there are user_id, item_id"),
        "{error}"
    );
}

fn refusal_of(content: Content, text: &str, mapping: &Mapping) -> String {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), text).expect("written");
    let part = Part::generic(file.path(), content, mapping);
    part.err().expect("refused").to_string()
}

#[test]
fn a_mapping_that_names_nothing_is_an_error_that_says_what_there_is() {
    let mapping = |field: &str, column: &str| Mapping {
        columns: vec![(field.to_owned(), column.to_owned())],
        ..Mapping::default()
    };
    let header = "user_id,item_id,timestamp,stars\n";
    let error = refusal_of(Content::Events, header, &mapping("rating", "star"));
    assert!(
        error.contains("no column `star`, there are user_id"),
        "{error}"
    );
    let error = refusal_of(
        Content::Events,
        "customer,item_id,timestamp\n",
        &mapping("user_id", "customr"),
    );
    assert!(
        error.starts_with("no column `customr`, there are customer"),
        "{error}"
    );
    let error = refusal_of(Content::Events, header, &mapping("grade", "stars"));
    assert!(
        error.starts_with("no field `grade`; events have event_id"),
        "{error}"
    );
    let error = refusal_of(Content::Items, "id;title\n", &Mapping::default());
    assert!(error.contains("--map item_id=COLUMN"), "{error}");
}

#[tokio::test]
async fn a_column_that_is_named_takes_the_place_of_one_with_the_name_of_the_field() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (log, mut sink) = sink(&dir);
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), "item_id,name,title\n1,Tea pot,Dr\n").expect("written");
    let mapping = Mapping {
        columns: vec![("title".to_owned(), "name".to_owned())],
        ..Mapping::default()
    };
    let part = Part::generic(file.path(), Content::Items, &mapping);
    let report = import(&mut part.expect("known"), &mut sink, |_| {}).await;
    assert_eq!(report.expect("imported").accepted, 1);
    let (_, item) = log.items().expect("readable").remove(0);
    assert_eq!(
        (item.title.as_str(), &item.attributes["file's title"]),
        ("Tea pot", &"Dr".into())
    );
}

#[tokio::test]
async fn a_second_row_of_an_item_is_refused_where_it_says_else() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (log, mut sink) = sink(&dir);
    let items = "item_id,title\n1,Tea pot\n1,Tea pot\n1,Coffee pot\n";
    let report = import_text(&mut sink, Content::Items, items).await;
    assert_eq!((report.accepted, report.refused["repeated_item"]), (1, 1));
    assert_eq!(log.end(), LogOffset(1));
}

#[tokio::test]
async fn rows_beyond_the_limits_stop_an_import_with_their_line() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (_log, mut sink) = sink(&dir);
    let texts = [
        (
            format!("item_id,title\n1,\"{}", "x\n".repeat(1 << 20)),
            "line 2: the row is longer than",
        ),
        (
            format!("{{}}\n{}\n", "x".repeat(1 << 21)),
            "line 2: the line is longer than",
        ),
        (
            format!("item_id,title\n{}\n", ",".repeat(2000)),
            "line 2: the row has more than 1024 cells",
        ),
    ];
    for (text, expected) in texts {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), text).expect("written");
        let part = Part::generic(file.path(), Content::Items, &Mapping::default());
        let error = import(&mut part.expect("begins well"), &mut sink, |_| {}).await;
        let error = error.expect_err("too much").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_an_archive_is_an_error() {
    let zip = refusal_of(Content::Items, "PK\u{3}\u{4}rest", &Mapping::default());
    assert!(zip.contains("a zip archive: unpack it"), "{zip}");
    let parquet = refusal_of(Content::Items, "PAR1 and nothing", &Mapping::default());
    assert!(parquet.contains("cut off"), "{parquet}");

    let dir = tempfile::tempdir().expect("temp dir");
    let (_log, mut sink) = sink(&dir);
    let packed = zstd::encode_all(ITEMS.repeat(100_000).as_bytes(), 0).expect("packed");
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), &packed[..packed.len() - 8]).expect("written");
    let part = Part::generic(file.path(), Content::Items, &Mapping::default());
    let error = import(&mut part.expect("begins well"), &mut sink, |_| {}).await;
    assert!(matches!(error, Err(ImportError::Unreadable { .. })));
}
