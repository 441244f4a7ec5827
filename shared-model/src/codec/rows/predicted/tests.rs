//! Rows come back as they were, near ones cost less, and nothing that is read can lead astray.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::codec::rows::{FreshRows, PerClass};
use crate::spec::ModelSpec;

const NUM_ROWS: usize = 200;

fn shape(name: &str, code_bits: u8) -> TensorShape {
    let spec = ModelSpec {
        text_dim: 40,
        text_code_bits: code_bits,
        num_neighbours: 12,
        ..ModelSpec::default()
    };
    let shapes = spec.tensor_shapes(NUM_ROWS);
    shapes
        .into_iter()
        .find(|shape| shape.name == name)
        .expect("in the spec")
}

/// Rows of a few themes, some blank, at different exponents.
fn texts(code_bits: u8) -> (TensorShape, CodeTensor) {
    let shape = shape("item.text", code_bits);
    let max = if code_bits == 4 { 7 } else { 127 };
    let rng = &mut StdRng::seed_from_u64(3);
    let themes: Vec<Vec<i16>> = (0..4)
        .map(|_| {
            (0..shape.num_cols)
                .map(|_| rng.random_range(-max..=max))
                .collect()
        })
        .collect();
    let mut tensor = CodeTensor::blank(&shape);
    for row_idx in (0..NUM_ROWS).filter(|row_idx| row_idx % 7 != 2) {
        tensor.exponents[row_idx] = -9 + (row_idx % 3) as i8;
        for (code, theme) in tensor.row_mut(row_idx).iter_mut().zip(&themes[row_idx % 4]) {
            *code = (theme + rng.random_range(-1..=1)).clamp(-max, max);
        }
    }
    (shape, tensor)
}

fn encoded(shape: &TensorShape, tensor: &CodeTensor) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let mut rows = PredictedRows::new(shape).expect("a predicted tensor");
    rows.encode(&mut encoder, tensor).expect("sound");
    encoder.finish()
}

/// As [`FreshRows`] would.
fn encoded_plainly(shape: &TensorShape, tensor: &CodeTensor) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let mut models = PerClass::<FreshRows>::new();
    let rows = models.enter(shape);
    for (row_idx, exponent) in tensor.exponents.iter().enumerate() {
        let row = RowMut {
            exponent: &mut exponent.clone(),
            codes: &mut tensor.row(row_idx).to_vec(),
        };
        rows.code(&mut encoder, row).expect("sound");
    }
    encoder.finish()
}

fn decoded(shape: &TensorShape, bytes: &[u8]) -> Result<CodeTensor, CodecError> {
    let mut tensor = CodeTensor::blank(shape);
    let mut decoder = Decoder::new(bytes);
    let mut rows = PredictedRows::new(shape).expect("a predicted tensor");
    rows.decode(&mut decoder, &mut tensor)?;
    decoder.finish()?;
    Ok(tensor)
}

#[test]
fn texts_come_back_and_cost_less_than_without_the_rows_before() {
    for code_bits in [4, 8] {
        let (shape, tensor) = texts(code_bits);
        let bytes = encoded(&shape, &tensor);
        assert_eq!(decoded(&shape, &bytes), Ok(tensor.clone()));
        let mut encoder = Encoder::new(Vec::new());
        let mut rows = PredictedRows::new(&shape).expect("a predicted tensor");
        rows.encode_at_once(&mut encoder, &tensor).expect("sound");
        let at_once = encoder.finish();
        assert_eq!(decoded(&shape, &at_once), Ok(tensor.clone()));
        assert!(bytes.len() < at_once.len());
        let plain = encoded_plainly(&shape, &tensor);
        assert!(
            bytes.len() * 4 < plain.len() * 3,
            "{} bytes of {}: each row is near one before",
            bytes.len(),
            plain.len()
        );
    }
}

#[test]
fn weights_of_neighbours_come_back_and_cost_less_where_they_fall() {
    let shape = shape(NEIGHBOUR_WEIGHTS_TENSOR, 8);
    let mut falling = CodeTensor::blank(&shape);
    let mut mixed = CodeTensor::blank(&shape);
    for row_idx in 0..NUM_ROWS {
        falling.exponents[row_idx] = -8;
        mixed.exponents[row_idx] = -8;
        for slot in 0..shape.num_cols {
            falling.row_mut(row_idx)[slot] = 120 - (slot * 9 + row_idx % 5) as i16;
            mixed.row_mut(row_idx)[slot] = 120 - (slot * 83 % 108 + row_idx * 7 % 13) as i16;
        }
    }
    let (falling_bytes, mixed_bytes) = (encoded(&shape, &falling), encoded(&shape, &mixed));
    assert_eq!(decoded(&shape, &falling_bytes), Ok(falling));
    assert_eq!(decoded(&shape, &mixed_bytes), Ok(mixed));
    assert!(falling_bytes.len() * 2 < mixed_bytes.len());
}

#[test]
fn neighbours_come_back_and_popular_ones_cost_less() {
    let shape = shape(NEIGHBOURS_TENSOR, 8);
    let rng = &mut StdRng::seed_from_u64(5);
    let mut lists = |num_popular: i16| {
        let mut tensor = CodeTensor::blank(&shape);
        for code in &mut tensor.codes {
            *code = 1 + 37 * rng.random_range(0..num_popular); // at most 200
        }
        tensor
    };
    let (popular, even) = (lists(3), lists(5));
    let (popular_bytes, even_bytes) = (encoded(&shape, &popular), encoded(&shape, &even));
    assert_eq!(decoded(&shape, &popular_bytes), Ok(popular));
    assert_eq!(decoded(&shape, &even_bytes), Ok(even));
    let least = NUM_ROWS * 12 * 3_u32.ilog2() as usize / 8;
    assert!(popular_bytes.len() < even_bytes.len() && popular_bytes.len() < 2 * least);
}

#[test]
fn a_combination_of_two_rows_is_found() {
    let shape = shape("item.text", 8);
    let rng = &mut StdRng::seed_from_u64(4);
    let mut tensor = CodeTensor::blank(&shape);
    for row_idx in 0..10 {
        tensor.exponents[row_idx] = -8;
        tensor
            .row_mut(row_idx)
            .fill_with(|| rng.random_range(-60..=60));
    }
    let (a, b) = (tensor.row(2).to_vec(), tensor.row(7).to_vec());
    tensor.exponents[10] = -9; // of half the step
    for (code, (a, b)) in tensor.row_mut(10).iter_mut().zip(a.iter().zip(&b)) {
        *code = a * 5 / 4 - b / 2; // 5/8 and −1/4 of the values
    }
    let mut found = Rows::new(&tensor).references_of(10);
    found.sort_by_key(|reference| reference.row_idx);
    let (five_eighths, a_quarter) = (5, -2);
    let expected = [(2, five_eighths), (7, a_quarter)];
    assert_eq!(
        found,
        expected.map(|(row_idx, factor)| Reference { row_idx, factor })
    );
    assert!(Rows::new(&tensor).references_of(0).is_empty());
}

#[test]
fn damage_is_an_error_or_other_codes_but_never_a_panic() {
    let (shape, tensor) = texts(8);
    let bytes = encoded(&shape, &tensor);
    for byte_idx in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[byte_idx] ^= 1 << (byte_idx % 8);
        assert_ne!(
            decoded(&shape, &damaged).as_ref(),
            Ok(&tensor),
            "byte {byte_idx}"
        );
    }
    assert!(decoded(&shape, &bytes[..bytes.len() / 2]).is_err());
}

#[test]
fn other_tensors_are_not_predicted() {
    let spec = ModelSpec {
        feature_dim: 2,
        ..ModelSpec::default()
    };
    let shapes = spec.tensor_shapes(3);
    let predicted = shapes
        .iter()
        .filter(|shape| PredictedRows::new(shape).is_some());
    let names: Vec<&str> = predicted.map(|shape| shape.name.as_str()).collect();
    assert_eq!(names, ["item.text", "item.features"]);
}
