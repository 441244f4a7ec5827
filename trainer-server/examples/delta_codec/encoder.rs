//! Pairs of weights of a text encoder, without its embeddings: before and after tuning.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::quantize::{exponent_for, power_of_two, quantize};
use shared_model::codec::state::CodeTensor;
use shared_model::spec::{TensorGroup, TensorShape};
use shared_model::text::parameters::NamedTensor;
use trainer_server::text_source::read_encoder_files;

use crate::measure::Pair;

/// Shares of codes that move.
const SHARES: [f64; 4] = [0.001, 0.0125, 0.05, 0.12];
const SEED: u64 = 1;
const CODE_BITS: u8 = 8;

/// Hands every pair to `report`.
pub(crate) fn pairs(
    base_dir: &Path,
    tuned_dir: &Path,
    report: impl Fn(&Pair) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let weights = weights(base_dir)?;
    let tuned: HashMap<String, NamedTensor> = self::weights(tuned_dir)?
        .into_iter()
        .map(|tensor| (layer_name(&tensor.name).to_owned(), tensor))
        .collect();
    let shapes: Vec<TensorShape> = weights.iter().map(shape).collect();
    let base: Vec<CodeTensor> = weights.iter().map(codes).collect();
    let mut wishes = Vec::new();
    for (tensor_idx, tensor) in weights.iter().enumerate() {
        let name = layer_name(&tensor.name);
        let after = tuned
            .get(name)
            .with_context(|| format!("no tuned tensor {name}"))?;
        ensure!(
            after.shape == tensor.shape,
            "the tuned tensor {name} has another shape"
        );
        wishes.extend(wished(tensor_idx, &base[tensor_idx], &after.values));
    }
    wishes.sort_by(|a, b| b.residual.total_cmp(&a.residual));
    let num_codes: usize = base.iter().map(|tensor| tensor.codes.len()).sum();
    for share in SHARES {
        let num_moved = (share * num_codes as f64) as usize; // a share of a count
        ensure!(
            num_moved <= wishes.len(),
            "tuning moved {} of {num_codes} codes, {share} of them are wanted: tune longer",
            wishes.len()
        );
        let mut target = base.clone();
        for wish in &wishes[..num_moved] {
            target[wish.tensor_idx].codes[wish.code_idx] = wish.code;
        }
        let name = format!("MiniLM tuned, {} %", 100.0 * share);
        report(&Pair {
            name,
            shapes: shapes.clone(),
            base: base.clone(),
            target,
        })?;
    }
    for share in SHARES {
        let target = by_chance(&base, share);
        let name = format!("MiniLM by chance, {} %", 100.0 * share);
        report(&Pair {
            name,
            shapes: shapes.clone(),
            base: base.clone(),
            target,
        })?;
    }
    Ok(())
}

/// Weights of the layers, in the order of their names.
fn weights(dir: &Path) -> anyhow::Result<Vec<NamedTensor>> {
    let files = read_encoder_files(dir, |name| name.contains("encoder.layer"))?;
    let mut tensors = files.tensors;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        !tensors.is_empty(),
        "{} holds no weights of layers",
        dir.display()
    );
    Ok(tensors)
}

/// The name from `encoder.layer` on: a tuned network may wear a prefix.
fn layer_name(name: &str) -> &str {
    name.find("encoder.layer")
        .map_or(name, |start| &name[start..])
}

fn shape(tensor: &NamedTensor) -> TensorShape {
    let num_cols = tensor.shape.last().copied().unwrap_or(1);
    TensorShape {
        name: tensor.name.clone(),
        num_rows: tensor.values.len() / num_cols,
        num_cols,
        code_bits: CODE_BITS,
        group: TensorGroup::Slow,
        per_item: false,
    }
}

fn codes(tensor: &NamedTensor) -> CodeTensor {
    let mut codes = CodeTensor::blank(&shape(tensor));
    for (row_idx, row) in tensor.values.chunks_exact(codes.num_cols).enumerate() {
        let max_abs = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        let exponent = exponent_for(max_abs, CODE_BITS);
        codes.exponents[row_idx] = exponent;
        for (code, value) in codes.row_mut(row_idx).iter_mut().zip(row) {
            *code = quantize(*value, exponent, CODE_BITS);
        }
    }
    codes
}

/// A code that tuning would move.
struct Wish {
    tensor_idx: usize,
    code_idx: usize,
    code: i16,
    /// Distance of the tuned weight from the code, in steps.
    residual: f32,
}

fn wished(tensor_idx: usize, base: &CodeTensor, tuned: &[f32]) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (code_idx, (value, base_code)) in tuned.iter().zip(&base.codes).enumerate() {
        let exponent = base.exponents[code_idx / base.num_cols];
        let code = quantize(*value, exponent, CODE_BITS);
        if code != *base_code {
            let residual = (value * power_of_two(-exponent) - f32::from(*base_code)).abs();
            wishes.push(Wish {
                tensor_idx,
                code_idx,
                code,
                residual,
            });
        }
    }
    wishes
}

/// Every code moves by one with this probability.
fn by_chance(base: &[CodeTensor], share: f64) -> Vec<CodeTensor> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut target = base.to_vec();
    for code in target.iter_mut().flat_map(|tensor| &mut tensor.codes) {
        if rng.random_bool(share) {
            let step = if rng.random_bool(0.5) { 1 } else { -1 };
            *code = if (*code + step).abs() > 127 {
                *code - step
            } else {
                *code + step
            };
        }
    }
    target
}
