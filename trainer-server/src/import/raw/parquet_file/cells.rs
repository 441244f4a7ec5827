//! Cells of a raw file: what is stored, and what a column makes of it.

use parquet::data_type::ByteArray;

use super::{Cell, Column, Kind};

/// Longest text.
const TEXT_BYTES_MAX: usize = 4096;

/// A cell as it is stored.
pub(super) enum Value {
    Whole(i64),
    Fraction(f64),
    Bytes(ByteArray),
}

impl Value {
    pub(super) fn from_i32(value: i32) -> Self {
        Self::Whole(value.into())
    }

    pub(super) fn from_f32(value: f32) -> Self {
        Self::Fraction(value.into())
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::Whole(value) => value.to_string(),
            Self::Fraction(value) => value.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes.data())
                .chars()
                .take(80)
                .collect(),
        }
    }
}

/// What the column says a value is.
pub(super) fn cell(column: &Column, value: Option<Value>) -> Result<Cell, &'static str> {
    Ok(match column.wanted.kind {
        Kind::Name => Cell::Name(value.map(name).transpose()?.filter(|name| !name.is_empty())),
        Kind::Number => Cell::Number(value.map(number).transpose()?),
        Kind::Time => {
            let time = |value| time(value, column.units_per_sec);
            Cell::Time(value.map(time).transpose()?)
        }
    })
}

fn name(value: Value) -> Result<String, &'static str> {
    match value {
        Value::Whole(value) => Ok(value.to_string()),
        // Whole numbers below 2^53 are exact.
        Value::Fraction(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => {
            Ok(format!("{value:.0}"))
        }
        Value::Fraction(value) if value.is_nan() => Ok(String::new()), // how spreadsheets write nothing
        Value::Fraction(_) => Err("expected a whole number"),
        Value::Bytes(bytes) if bytes.len() > TEXT_BYTES_MAX => {
            Err("expected at most 4096 bytes of text")
        }
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data()).map_err(|_utf8| "expected UTF-8")?;
            Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

fn number(value: Value) -> Result<f64, &'static str> {
    match value {
        Value::Whole(value) => Ok(value as f64), // amounts beyond 2^53 are rounded
        Value::Fraction(value) if value.is_finite() => Ok(value),
        Value::Fraction(_) => Err("expected a finite number"),
        Value::Bytes(_) => Err("expected a number"),
    }
}

fn time(value: Value, units_per_sec: i64) -> Result<i64, &'static str> {
    match value {
        Value::Whole(value) if value >= 0 => Ok(value / (units_per_sec / 1000)),
        Value::Whole(_) => Err("expected a moment from 1970-01-01 on"),
        Value::Fraction(_) | Value::Bytes(_) => Err("expected a moment"),
    }
}
