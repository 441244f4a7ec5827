//! One pair of code states: what each way of sending the change costs.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};
use shared_model::codec::delta::DELTA_HEADER_BYTES;
use shared_model::codec::state::CodeTensor;
use shared_model::codec::tensors::{apply_tensors, encode_tensors};
use shared_model::spec::TensorShape;

use crate::rivals;

/// Timed decodes of one delta; the median counts.
const NUM_DECODES: usize = 9;

/// Tensors before and after; where `base` has fewer rows, those of the target beyond are new.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) shapes: Vec<TensorShape>,
    pub(crate) base: Vec<CodeTensor>,
    pub(crate) target: Vec<CodeTensor>,
}

/// All figures of a pair, after its delta has been decoded and compared.
pub(crate) fn case(pair: &Pair) -> anyhow::Result<Value> {
    let delta = encode_tensors(&pair.shapes, &pair.base, &pair.target)?;
    let mut secs = Vec::with_capacity(NUM_DECODES);
    for _ in 0..NUM_DECODES {
        let started = Instant::now();
        let decoded = apply_tensors(&pair.shapes, &pair.base, &delta)?;
        secs.push(started.elapsed().as_secs_f64());
        ensure!(
            decoded == pair.target,
            "{}: the delta decodes to other codes",
            pair.name
        );
    }
    secs.sort_by(f64::total_cmp);
    let (base, target) = (plain(&pair.base), plain(&pair.target));
    let bytes = DELTA_HEADER_BYTES + delta.len();
    let entropy_bytes = entropy_bytes(pair);
    let zstd = rivals::zstd_patch_from(&base, &target)?;
    let dictionary = rivals::zstd_dictionary(&base, &target)?;
    let bsdiff = rivals::bsdiff(&base, &target)?;
    let ratio = |rival: usize| rival as f64 / bytes as f64; // lengths fit f64
    Ok(json!({
        "name": pair.name,
        "changed_share": changed_share(pair),
        "code_bytes": target.len(),
        "bytes": bytes,
        "zstd_patch_from_bytes": zstd,
        "dcz_bytes": dictionary,
        "bsdiff_bytes": bsdiff,
        "entropy_bytes": entropy_bytes,
        "zstd_patch_from_ratio": ratio(zstd),
        "dcz_ratio": ratio(dictionary),
        "bsdiff_ratio": ratio(bsdiff),
        "over_entropy": bytes as f64 / entropy_bytes - 1.0, // likewise
        "decode_mb_per_sec": target.len() as f64 / secs[NUM_DECODES / 2] / 1e6, // likewise
    }))
}

/// What a generic tool is given: exponents and codes one after another, as in the bytes that a state is hashed by.
fn plain(tensors: &[CodeTensor]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for tensor in tensors {
        bytes.extend(
            tensor
                .exponents
                .iter()
                .flat_map(|exponent| exponent.to_le_bytes()),
        );
        for code in &tensor.codes {
            if tensor.code_bits == 16 {
                bytes.extend(code.to_le_bytes());
            } else {
                bytes.push(code.to_le_bytes()[0]); // −127 to 127: the low byte is the code
            }
        }
    }
    bytes
}

/// Codes that differ, of those in rows that both have.
fn changed_share(pair: &Pair) -> f64 {
    let (mut num_changed, mut num_codes) = (0_usize, 0_usize);
    for (base, target) in pair.base.iter().zip(&pair.target) {
        num_codes += base.codes.len();
        let codes = base.codes.iter().zip(&target.codes);
        num_changed += codes.filter(|(base, target)| base != target).count();
    }
    num_changed as f64 / num_codes.max(1) as f64 // counts fit f64
}

/// Entropy of the change, in bytes: per tensor the differences of exponents, those of codes, and the codes of new
/// rows, each as independent draws from its own distribution in this very pair, which the decoder would have to know.
fn entropy_bytes(pair: &Pair) -> f64 {
    let mut bits = 0.0;
    for (base, target) in pair.base.iter().zip(&pair.target) {
        let exponents = base.exponents.iter().zip(&target.exponents);
        bits += entropy_bits(exponents.map(|(base, target)| i32::from(*target) - i32::from(*base)));
        let codes = base.codes.iter().zip(&target.codes);
        bits += entropy_bits(codes.map(|(base, target)| i32::from(*target) - i32::from(*base)));
        let fresh = &target.codes[base.codes.len()..];
        bits += entropy_bits(fresh.iter().map(|code| i32::from(*code)));
    }
    bits / 8.0
}

/// `−Σ log2 p(symbol)` under the frequencies of the symbols themselves.
fn entropy_bits(symbols: impl Iterator<Item = i32>) -> f64 {
    let mut counts: HashMap<i32, u64> = HashMap::new();
    let mut total = 0_u64;
    for symbol in symbols {
        *counts.entry(symbol).or_default() += 1;
        total += 1;
    }
    let total = total as f64; // counts fit f64
    let bits = |count: &u64| *count as f64 * (total / *count as f64).log2(); // likewise
    counts.values().map(bits).sum()
}
