//! Curves as TensorBoard event files: one folder per system, so that TensorBoard draws the systems over each other.
//!
//! ```text
//! record   length u64 le │ masked crc32c of these 8 bytes u32 le │ data │ masked crc32c of the data u32 le
//! data     protobuf Event { 1: wall_time double, 2: step int64, 3: file_version string, 5: Summary }
//!          Summary { 1: repeated Value }, Value { 1: tag string, 2: simple_value float }
//! masked   rotate_right(crc, 15) + 0xa282ead8
//! ```
//! Formats: TensorFlow's `record_writer.h`, `event.proto`, `summary.proto`.
//! The step is the number of events streamed, the wall time is event time. Not here: the figures themselves.

use std::path::{Path, PathBuf};

use shared_model::metrics::{hit_rate_at_k, ndcg_at_k};

use super::figures::position_of;
use super::outcomes::{Asked, Outcomes};
use super::systems::Systems;
use crate::baselines::ranked::{Ranked, TOP_LEN};

/// Headline events that one point is the mean of.
pub const WINDOW_LEN: usize = 1000;
/// Points per curve, at most.
const NUM_POINTS_MAX: usize = 200;

/// Why the files are not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the curves to {}", path.display())]
pub struct TensorBoardError {
    path: PathBuf,
    source: std::io::Error,
}

/// One value of one curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Name of the curve.
    pub tag: &'static str,
    /// Seconds since 1970-01-01 UTC.
    pub wall_secs: f64,
    /// Events streamed so far.
    pub step: u64,
    /// Value.
    pub value: f32,
}

/// Writes `dir/SYSTEM/events.out.tfevents.…` for every scored system; earlier files of the same name are replaced.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, outcomes: &Outcomes, systems: &Systems) -> Result<(), TensorBoardError> {
    let first_secs = outcomes
        .asked()
        .first()
        .map_or(0, |asked| asked.occurred_at / 1000);
    for (name, _) in systems.scored() {
        let Some(answers) = outcomes.answers(name) else {
            continue;
        };
        let folder = dir.join(name);
        let path = folder.join(format!("events.out.tfevents.{first_secs}.freshet"));
        let bytes = file(&curves(outcomes.asked(), &answers.ranked));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, bytes))
            .map_err(|source| TensorBoardError { path, source })?;
    }
    Ok(())
}

/// Means over the last [`WINDOW_LEN`] headline events, at evenly spaced places of the stream.
#[must_use]
pub fn curves(asked: &[Asked], ranked: &[Ranked]) -> Vec<Scalar> {
    let new: Vec<(usize, &Asked, &Ranked)> = asked
        .iter()
        .zip(ranked)
        .enumerate()
        .filter(|(_, (asked, _))| asked.is_new)
        .map(|(idx, (asked, ranked))| (idx, asked, ranked))
        .collect();
    let every = new.len().div_ceil(NUM_POINTS_MAX).max(1);
    let mut scalars = Vec::new();
    for end in (1..=new.len()).filter(|end| end % every == 0 || *end == new.len()) {
        let window = &new[end.saturating_sub(WINDOW_LEN)..end];
        let mean = |value: fn(&Ranked) -> f64| {
            let sum: f64 = window.iter().map(|(_, _, ranked)| value(ranked)).sum();
            (sum / window.len() as f64) as f32 // a figure for the eye
        };
        let (idx, last, _) = window[window.len() - 1];
        let values = [
            (
                "hr_at_10",
                mean(|ranked| hit_rate_at_k(position_of(ranked), TOP_LEN)),
            ),
            (
                "ndcg_at_10",
                mean(|ranked| ndcg_at_k(position_of(ranked), TOP_LEN)),
            ),
            ("log_loss", mean(|ranked| f64::from(ranked.log_loss))),
        ];
        for (tag, value) in values {
            if value.is_finite() {
                scalars.push(Scalar {
                    tag,
                    wall_secs: last.occurred_at as f64 / 1000.0, // milliseconds of centuries fit f64
                    step: idx as u64 + 1,                        // usize fits u64
                    value,
                });
            }
        }
    }
    scalars
}

/// A whole event file.
#[must_use]
pub fn file(scalars: &[Scalar]) -> Vec<u8> {
    let wall_secs = scalars.first().map_or(0.0, |scalar| scalar.wall_secs);
    let mut version = double_field(1, wall_secs);
    version.extend(bytes_field(3, b"brain.Event:2"));
    let mut bytes = record(&version);
    for scalar in scalars {
        let mut value = bytes_field(1, scalar.tag.as_bytes());
        value.push(tag_byte(2, 5));
        value.extend(scalar.value.to_le_bytes());
        let mut event = double_field(1, scalar.wall_secs);
        event.push(tag_byte(2, 0));
        event.extend(varint(scalar.step));
        event.extend(bytes_field(5, &bytes_field(1, &value)));
        bytes.extend(record(&event));
    }
    bytes
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes(); // usize fits u64
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked_crc(data).to_le_bytes());
    bytes
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Number and wire type of a protobuf field below 16.
fn tag_byte(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

fn double_field(field: u8, value: f64) -> Vec<u8> {
    let mut bytes = vec![tag_byte(field, 1)];
    bytes.extend(value.to_le_bytes());
    bytes
}

fn bytes_field(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag_byte(field, 2)];
    bytes.extend(varint(content.len() as u64)); // usize fits u64
    bytes.extend(content);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80); // the low seven bits are meant
        value >>= 7;
    }
    bytes.push(value as u8); // below 0x80
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file back with code that shares nothing with the writer but the checksum crate.
    fn read(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let unmask = |masked: u32| masked.wrapping_sub(0xa282_ead8).rotate_left(15);
        let number = |four: &[u8]| u32::from_le_bytes(four.try_into().expect("four bytes"));
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
            assert_eq!(unmask(number(&bytes[8..12])), crc32c::crc32c(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(
                unmask(number(&bytes[12 + length..16 + length])),
                crc32c::crc32c(data)
            );
            records.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        records
    }

    #[test]
    fn a_file_reads_back_byte_by_byte() {
        let scalar = Scalar {
            tag: "hr_at_10",
            wall_secs: 2.0,
            step: 300,
            value: 0.5,
        };
        let records = read(&file(&[scalar]));
        let mut version = vec![0x09, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x1a, 13];
        version.extend(b"brain.Event:2");
        let mut event = vec![0x09, 0, 0, 0, 0, 0, 0, 0, 0x40];
        event.extend([0x10, 0xac, 0x02]); // step 300
        event.extend([0x2a, 17, 0x0a, 15, 0x0a, 8]); // summary of 17 bytes, value of 15, tag of 8
        event.extend(b"hr_at_10");
        event.extend([0x15, 0, 0, 0, 0x3f]); // 0.5
        assert_eq!(records, vec![version, event]);
    }

    #[test]
    fn the_checksum_is_the_one_of_castagnoli() {
        assert_eq!(
            crc32c::crc32c(b"123456789"),
            0xe306_9283,
            "the check value of CRC-32C"
        );
        assert_eq!(
            masked_crc(b"123456789"),
            0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }

    #[test]
    fn a_curve_is_the_mean_of_the_newest_and_has_no_loss_without_probabilities() {
        let asked = |user_idx| Asked {
            user_idx,
            item_idx: 0,
            occurred_at: 5000,
            is_new: user_idx != 1,
            is_cold_item: false,
            is_cold_user: false,
            popularity: 0.0,
        };
        let ranked = [Some(1), Some(1), None, Some(2)].map(|rank| Ranked {
            rank,
            ..Ranked::NOTHING
        });
        let scalars = curves(&[asked(0), asked(1), asked(2), asked(3)], &ranked);
        let hits: Vec<(u64, f32)> = scalars
            .iter()
            .filter(|scalar| scalar.tag == "hr_at_10")
            .map(|scalar| (scalar.step, scalar.value))
            .collect();
        assert_eq!(hits, vec![(1, 1.0), (3, 0.5), (4, 2.0 / 3.0)]);
        assert!(
            scalars
                .iter()
                .all(|scalar| scalar.tag != "log_loss" && scalar.wall_secs == 5.0)
        );
    }
}
