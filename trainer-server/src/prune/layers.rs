//! Whole layers left out, those first whose absence changes embeddings least.
//!
//! A layer matters as much as embeddings change without it, by 1 − cosine with those of the whole network, mean over
//! texts. What goes is found one layer at a time, each time with those gone that went before, since layers stand in for
//! each other (greedy, as ShortGPT, Men et al. 2024, and Sajjad et al. 2023 compare by their outputs).

use burn::tensor::Device;
use shared_model::text::TokenizedText;

use super::weights::Weights;
use super::{PruneError, check_kept, tokens_of};
use crate::text_pack::PackSource;

const LAYER: &str = "encoder.layer.";

/// The `num` layers to keep, ascending.
///
/// # Errors
/// There are fewer layers or none is to be kept, there are no texts, or the encoder is not sound.
pub fn layers_that_matter(
    parts: &PackSource,
    texts: &[String],
    num: usize,
) -> Result<Vec<usize>, PruneError> {
    let num_layers = parts.config.num_hidden_layers;
    check_kept("num_hidden_layers", num, num_layers)?;
    let tokens = tokens_of(parts, texts)?;
    let mut kept: Vec<usize> = (0..num_layers).collect();
    let whole = embeddings(parts, &kept, &tokens)?;
    while kept.len() > num {
        let mut least = (f32::INFINITY, 0);
        for place in 0..kept.len() {
            let mut rest = kept.clone();
            rest.remove(place);
            let change = -cosine(&whole, &embeddings(parts, &rest, &tokens)?);
            if change < least.0 {
                least = (change, place);
            }
        }
        kept.remove(least.1);
    }
    Ok(kept)
}

/// The encoder with these layers alone.
///
/// # Errors
/// `keep` is empty, not ascending, or names a layer that is not there.
pub fn layers(parts: PackSource, keep: &[usize]) -> Result<PackSource, PruneError> {
    let PackSource {
        mut config,
        tokenizer_json,
        tensors,
        len_max,
    } = parts;
    let num_layers = config.num_hidden_layers;
    let is_choice =
        keep.is_sorted_by(|a, b| a < b) && keep.last().is_some_and(|last| *last < num_layers);
    if !is_choice {
        let keep = keep.to_vec();
        return Err(PruneError::Layers { keep, num_layers });
    }
    let mut kept = Vec::new();
    for mut tensor in Weights::new(tensors).into_named() {
        if let Some((layer, part)) = of_layer(&tensor.name) {
            let Some(place) = keep.iter().position(|kept| *kept == layer) else {
                continue;
            };
            tensor.name = format!("{LAYER}{place}.{part}");
        }
        kept.push(tensor);
    }
    config.num_hidden_layers = keep.len();
    Ok(PackSource {
        config,
        tokenizer_json,
        tensors: kept,
        len_max,
    })
}

/// Number of the layer that a weight belongs to, and the rest of its name.
fn of_layer(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix(LAYER)?.split_once('.')?;
    Some((layer.parse().ok()?, part)) // what has no number is of no layer
}

fn embeddings(
    parts: &PackSource,
    kept: &[usize],
    tokens: &[TokenizedText],
) -> Result<Vec<f32>, PruneError> {
    let encoder = layers(parts.clone(), kept)?.encoder(&Device::flex())?;
    Ok(encoder.encoder().encode(tokens)?)
}

/// Sum over all rows, which are of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
