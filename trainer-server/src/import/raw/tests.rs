//! Claims about raw files as a whole: from Parquet into a log and into a dataset, and the file of Online Retail.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::catalogue::Catalogue;
use crate::config::load::{Sources, load};
use crate::config::{Config, Preset};
use crate::dataset::Dataset;
use crate::event_log::{EventLog, EventLogConfig};
use crate::experiment::store::Experiments;
use crate::import::sink::{LogSink, Sink, Target};
use crate::import::{Content, send_all};
use crate::pseudonyms::Pseudonyms;

/// The columns of Online Retail's file, as Polars wrote them.
pub(super) const SCHEMA: &str = "message root {
    optional binary Description (UTF8);
    optional int32 Quantity;
    optional int64 InvoiceDate (TIMESTAMP(NANOS,false));
    optional double UnitPrice;
    optional double CustomerID;
}";

/// Item, quantity, minute, price, user; an empty item and a user of 0 are empty cells.
pub(super) type Line = (&'static str, i32, i64, f64, f64);

/// A Parquet file of two row groups.
pub(super) fn write_file(path: &Path, lines: &[Line]) {
    let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let file = std::fs::File::create(path).expect("writable");
    let mut writer =
        SerializedFileWriter::new(file, schema, Arc::new(properties.build())).expect("a writer");
    for lines in lines.chunks(lines.len().div_ceil(2).max(1)) {
        let mut group = writer.next_row_group().expect("a row group");
        let mut number = 0;
        while let Some(mut column) = group.next_column().expect("a column") {
            let all = vec![1; lines.len()];
            let is_there = |is_there: &dyn Fn(&Line) -> bool| -> Vec<i16> {
                lines.iter().map(|line| i16::from(is_there(line))).collect()
            };
            let written = match number {
                0 => {
                    let there = is_there(&|line| !line.0.is_empty());
                    let texts = lines.iter().filter(|line| !line.0.is_empty());
                    let texts: Vec<ByteArray> = texts.map(|line| line.0.into()).collect();
                    let column = column.typed::<ByteArrayType>();
                    column.write_batch(&texts, Some(&there), None)
                }
                1 => {
                    let values: Vec<i32> = lines.iter().map(|line| line.1).collect();
                    let column = column.typed::<Int32Type>();
                    column.write_batch(&values, Some(&all), None)
                }
                2 => {
                    let nanos = lines.iter().map(|line| line.2 * 60_000_000_000);
                    let column = column.typed::<Int64Type>();
                    column.write_batch(&nanos.collect::<Vec<i64>>(), Some(&all), None)
                }
                3 => {
                    let values: Vec<f64> = lines.iter().map(|line| line.3).collect();
                    let column = column.typed::<DoubleType>();
                    column.write_batch(&values, Some(&all), None)
                }
                _ => {
                    let there = is_there(&|line| line.4 != 0.0);
                    let users = lines.iter().map(|line| line.4).filter(|user| *user != 0.0);
                    let column = column.typed::<DoubleType>();
                    column.write_batch(&users.collect::<Vec<f64>>(), Some(&there), None)
                }
            };
            written.expect("written");
            column.close().expect("closed");
            number += 1;
        }
        group.close().expect("closed");
    }
    writer.close().expect("closed");
}

const LINES: [Line; 7] = [
    ("TEA POT", 6, 10, 2.5, 17_850.0),
    ("POSTAGE", 1, 10, 18.0, 17_850.0),
    ("  BALLOONS  RED ", 12, 10, 0.25, 17_850.0),
    ("TEA POT", 3, 11, 2.5, 12_583.0),
    ("BALLOONS RED", 8, 12, 0.5, 0.0),
    ("TEA POT", -2, 13, 2.5, 12_583.0),
    ("", 8, 13, 0.0, 12_583.0),
];

fn shop() -> Config {
    let sources = Sources {
        preset: Some(Preset::Shop),
        ..Default::default()
    };
    load(&sources).expect("a valid preset")
}

fn cleaned(lines: &[Line]) -> Cleaned {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("raw.parquet");
    write_file(&path, lines);
    read(&path, &shop().import, |_, _| {}).expect("a sound file")
}

#[test]
fn every_line_of_a_file_is_an_event_or_counted_where_it_went() {
    let cleaned = cleaned(&LINES);
    let document = cleaned.document();
    assert_eq!(
        (&document["lines"], &document["events"]),
        (&json!(7), &json!(3))
    );
    let set_aside = document["set_aside"].as_object().expect("an object");
    let counts: Vec<(&str, u64)> = set_aside
        .iter()
        .map(|(key, count)| (key.as_str(), count.as_u64().expect("a count")))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        counts,
        [("fee", 1), ("no_item", 1), ("no_user", 1), ("return", 1)]
    );
    assert_eq!(document["reduced"], json!(1));
    let events: Vec<Value> = cleaned.event_records().map(|record| record.value).collect();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["user_id"].as_str(),
                event["item_id"].as_str(),
                event["value"].as_f64(),
            )
        })
        .collect();
    let expected = [
        ("17850", "TEA POT", 6.0),
        ("17850", "BALLOONS RED", 12.0),
        ("12583", "TEA POT", 1.0),
    ];
    let expected = expected.map(|(user, item, value)| (Some(user), Some(item), Some(value)));
    assert_eq!(told, expected);
    assert_eq!(events[2]["occurred_at"], json!(11 * 60_000));
    assert!(
        cleaned.table().contains("7  lines read"),
        "{}",
        cleaned.table()
    );
}

#[tokio::test]
async fn a_raw_file_goes_into_a_log_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let log = EventLog::open(dir.path(), &EventLogConfig::from(&Config::default())).expect("opens");
    let target = Target::Log(LogSink {
        catalogue: Catalogue::from_log(&log).expect("rebuilt"),
        log: log.clone(),
        future_millis_max: 300_000,
        pseudonyms: Pseudonyms::default(),
        experiments: Experiments::open(dir.path()).expect("opens"),
        clock: || 1_800_000_000_000,
    });
    let mut sink = Sink::new(target, false);
    let cleaned = cleaned(&LINES);
    for (round, accepted) in [(0, (2, 3)), (1, (0, 0))] {
        let items = send_all(Content::Items, cleaned.item_records(), &mut sink, |_| {}).await;
        let events = send_all(Content::Events, cleaned.event_records(), &mut sink, |_| {}).await;
        let (items, events) = (items.expect("sent"), events.expect("sent"));
        assert_eq!((items.accepted, events.accepted), accepted, "round {round}");
        assert_eq!(items.num_refused() + events.num_refused(), 0);
    }
}

#[test]
fn equal_purchases_that_are_not_merged_have_ids_of_their_own() {
    let lines = [LINES[0], LINES[2], LINES[0]];
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("raw.parquet");
    write_file(&path, &lines);
    let rules = crate::config::ImportConfig {
        drop_duplicates: false,
        merge_lines: false,
        ..shop().import
    };
    let cleaned = read(&path, &rules, |_, _| {}).expect("a sound file");
    let ids = cleaned
        .event_records()
        .map(|record| record.value["event_id"].to_string());
    assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[test]
fn what_is_written_as_a_dataset_is_read_as_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    cleaned(&LINES)
        .write_dataset(&dir.path().join("shop"))
        .expect("written");
    let dataset = Dataset::load(&dir.path().join("shop"), 1).expect("a dataset");
    let titles: Vec<&str> = dataset
        .items
        .iter()
        .map(|item| item.title.as_str())
        .collect();
    assert_eq!(titles, ["BALLOONS RED", "TEA POT"]);
    assert_eq!(dataset.events.len(), 3);
    assert_eq!(dataset.events[2].value, Some(1.0));
    assert_eq!(dataset.items[0].attributes["median_price"], json!("0.25"));
    let again = cleaned(&LINES).write_dataset(&dir.path().join("shop"));
    assert!(matches!(again, Err(RawError::Exists { .. })), "{again:?}");
}

/// The folder of Online Retail; `None`, and said, where it is not.
fn online_retail() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FRESHET_DATA").map_or(beside, PathBuf::from);
    let dir = folder.join("online-retail");
    if !dir.join("raw_541909_rows.parquet").is_file() {
        println!(
            "skipped: {} has no raw file (set FRESHET_DATA)",
            dir.display()
        );
        return None;
    }
    Some(dir)
}

/// Quantity by user, title and second.
type ByMoment = HashMap<(String, String, i64), f64>;

fn moments_of(cleaned: &Cleaned) -> ByMoment {
    let purchases = cleaned.purchases.iter().map(|purchase| {
        let (user, title) = cleaned.names(purchase);
        let key = (user.to_owned(), title.to_owned(), purchase.occurred_at);
        (key, purchase.quantity)
    });
    purchases.collect()
}

#[test]
fn the_file_of_online_retail_gives_the_shipped_events_and_fewer_with_returns() {
    let Some(dir) = online_retail() else { return };
    let shipped = Dataset::load(&dir, 1).expect("the shipped dataset");
    // Fees that whoever made the shipped file took for goods.
    let overlooked = ["PACKING CHARGE", "High Resolution Image"];
    let shipped: ByMoment = shipped
        .events
        .iter()
        .map(|event| {
            let user = shipped.users[event.user_idx as usize].as_str().to_owned();
            let title = shipped.items[event.item_idx as usize].title.clone();
            (
                (user, title, event.occurred_at),
                event.value.expect("a quantity"),
            )
        })
        .collect();
    let num_shipped = shipped.len();
    let shipped: ByMoment = shipped
        .into_iter()
        .filter(|((_, title, _), _)| !overlooked.contains(&title.as_str()))
        .collect();
    assert_eq!((num_shipped, num_shipped - shipped.len()), (385_962, 17));
    let path = dir.join("raw_541909_rows.parquet");
    let with = |rules: &ImportConfig| read(&path, rules, |_, _| {}).expect("a sound file");

    let plain = ImportConfig {
        cancel_returns: false,
        drop_duplicates: false,
        ..shop().import
    };
    let plain = with(&plain);
    assert!(
        moments_of(&plain) == shipped,
        "the shipped file was made without the two rules"
    );

    let cleaned = with(&shop().import);
    let counts = &cleaned.counts;
    let ended: u64 = Fate::ALL.iter().map(|fate| counts.of(*fate)).sum();
    assert_eq!(ended + counts.num_events, 541_909, "{}", cleaned.table());
    let moments = moments_of(&cleaned);
    let num_unknown = moments
        .keys()
        .filter(|key| !shipped.contains_key(*key))
        .count();
    assert_eq!(num_unknown, 0, "rules only take away");
    let num_gone = shipped.len() - moments.len();
    println!(
        "{}{num_gone} of {} events are gone",
        cleaned.table(),
        shipped.len()
    );
    // As a second program counts them.
    let expected = [
        (Fate::NoUser, 135_080),
        (Fate::Fee, 2_019),
        (Fate::Price, 33),
        (Fate::Duplicate, 5_328),
        (Fate::Return, 7_326),
        (Fate::ReturnInExcess, 57),
        (Fate::ReturnUnmatched, 1_117),
        (Fate::Returned, 2_738),
        (Fate::Merged, 4_971),
    ];
    let actual = expected.map(|(fate, _)| (fate, counts.of(fate)));
    assert_eq!(actual, expected);
    assert_eq!((counts.num_events, counts.num_reduced), (383_240, 4_522));
    let largest = cleaned.purchases.iter().map(|purchase| purchase.quantity);
    assert!(
        largest.fold(0.0, f64::max) == 4_800.0,
        "80,995 pieces were returned within minutes"
    );
}
