//! Claims about reading Parquet: what is asked for comes out, and what is not right is named.

use std::sync::Arc;

use parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::super::tests::{Line, write_file};
use super::*;

const WANTED: [Wanted; 3] = [
    Wanted {
        name: "CustomerID",
        kind: Kind::Name,
    },
    Wanted {
        name: "Quantity",
        kind: Kind::Number,
    },
    Wanted {
        name: "InvoiceDate",
        kind: Kind::Time,
    },
];

fn rows_of(path: &Path, wanted: &[Wanted]) -> Result<Vec<(u64, Vec<Cell>)>, RawFileError> {
    let file = RawFile::open(path, wanted)?;
    let mut rows = Vec::new();
    file.for_each_row(|number, cells| {
        rows.push((number, cells));
        Ok::<_, RawFileError>(())
    })?;
    assert_eq!(rows.len() as u64, file.num_rows());
    Ok(rows)
}

fn error_of(path: &Path, wanted: &[Wanted]) -> String {
    rows_of(path, wanted).expect_err("refused").to_string()
}

/// A file of one column with one row of each value given.
fn write_column<T: DataType>(path: &Path, schema: &str, values: &[T::T]) {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let file = File::create(path).expect("writable");
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("a column").expect("one");
    column
        .typed::<T>()
        .write_batch(values, None, None)
        .expect("written");
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
}

fn many_lines() -> Vec<Line> {
    (0..20_000)
        .map(|idx| ("TEA POT", idx, i64::from(idx), 1.0, f64::from(idx % 3)))
        .collect()
}

#[test]
fn rows_come_in_order_over_batches_and_row_groups_with_empty_cells() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    write_file(file.path(), &many_lines());
    let rows = rows_of(file.path(), &WANTED).expect("a sound file");
    assert_eq!(rows.len(), 20_000);
    for (idx, (number, cells)) in rows.into_iter().enumerate() {
        let user = (idx % 3 != 0).then(|| (idx % 3).to_string());
        let expected = [
            Cell::Name(user),
            Cell::Number(Some(idx as f64)),
            Cell::Time(Some(idx as i64 * 60_000)),
        ];
        assert_eq!(
            (number, cells.as_slice()),
            (idx as u64 + 1, expected.as_slice())
        );
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("cut.parquet");
    write_file(&path, &many_lines()[..40]);
    let bytes = std::fs::read(&path).expect("readable");
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).expect("writable");
        let error = error_of(&path, &WANTED);
        let is_named = error.contains("cut.parquet");
        let is_told =
            error.contains("cut off") || (len < 4 && error.contains("not a Parquet file"));
        assert!(is_named && is_told, "{len} bytes: {error}");
    }
    std::fs::write(&path, "user_id\titem_id\ttimestamp\n").expect("writable");
    assert!(error_of(&path, &WANTED).starts_with("not a Parquet file"));
}

#[test]
fn a_damaged_byte_never_ends_the_process() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("damaged.parquet");
    write_file(&path, &many_lines()[..40]);
    let bytes = std::fs::read(&path).expect("readable");
    let mut num_refused = 0;
    for place in 4..bytes.len() - 4 {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            std::fs::write(&path, &damaged).expect("writable");
            num_refused += u32::from(rows_of(&path, &WANTED).is_err());
        }
    }
    assert!(num_refused > 100, "{num_refused} refused");
}

#[test]
fn a_missing_column_and_one_of_another_type_are_named() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    write_file(file.path(), &many_lines()[..4]);
    let wanted = |name, kind| [Wanted { name, kind }];
    let missing = error_of(file.path(), &wanted("customer", Kind::Name));
    assert!(
        missing.contains("`customer`") && missing.contains("CustomerID"),
        "{missing}"
    );
    for (name, kind) in [
        ("Description", Kind::Number),
        ("Quantity", Kind::Time),
        ("InvoiceDate", Kind::Number),
        ("Description", Kind::Time),
    ] {
        let error = error_of(file.path(), &wanted(name, kind));
        let says = error.contains(name) && error.contains(kind.expected());
        assert!(says && error.contains("expected"), "{error}");
    }
    let plain = "message root { required int64 at; }";
    write_column::<Int64Type>(file.path(), plain, &[1]);
    let error = error_of(file.path(), &wanted("at", Kind::Time));
    assert!(
        error.contains("`at` is INT64, expected a timestamp"),
        "{error}"
    );
}

#[test]
fn a_value_that_its_column_cannot_hold_is_named_with_its_row() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    let of = |kind| [Wanted { name: "x", kind }];
    let double = "message root { required double x; }";
    write_column::<DoubleType>(file.path(), double, &[17.0, 12.5]);
    let error = error_of(file.path(), &of(Kind::Name));
    assert!(
        error.contains("column `x`, row 2: \"12.5\"") && error.contains("whole"),
        "{error}"
    );
    write_column::<DoubleType>(file.path(), double, &[1.0, 2.0, f64::INFINITY]);
    let error = error_of(file.path(), &of(Kind::Number));
    assert!(
        error.contains("row 3") && error.contains("finite"),
        "{error}"
    );
    let text = "message root { required binary x (UTF8); }";
    write_column::<ByteArrayType>(file.path(), text, &[vec![0xff, 0xfe].into()]);
    let error = error_of(file.path(), &of(Kind::Name));
    assert!(
        error.contains("row 1") && error.contains("UTF-8"),
        "{error}"
    );
    write_column::<ByteArrayType>(file.path(), text, &[vec![b'x'; 5000].into()]);
    assert!(error_of(file.path(), &of(Kind::Name)).contains("4096"));
    let time = "message root { required int64 x (TIMESTAMP(MILLIS,true)); }";
    write_column::<Int64Type>(file.path(), time, &[5, -1]);
    let error = error_of(file.path(), &of(Kind::Time));
    assert!(error.contains("row 2: \"-1\""), "{error}");
}

#[test]
fn names_may_be_texts_or_whole_numbers_and_nothing_is_no_name() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    let wanted = [Wanted {
        name: "x",
        kind: Kind::Name,
    }];
    let names = |path: &Path| -> Vec<Option<String>> {
        let rows = rows_of(path, &wanted).expect("a sound file").into_iter();
        rows.map(|(_, cells)| match &cells[..] {
            [Cell::Name(name)] => name.clone(),
            other => panic!("{other:?}"),
        })
        .collect()
    };
    let double = "message root { required double x; }";
    write_column::<DoubleType>(file.path(), double, &[12346.0, f64::NAN]);
    assert_eq!(names(file.path()), [Some("12346".to_owned()), None]);
    let text = "message root { required binary x (UTF8); }";
    write_column::<ByteArrayType>(file.path(), text, &[" a\t b ".into(), "  ".into()]);
    assert_eq!(names(file.path()), [Some("a b".to_owned()), None]);
}
