//! Neurons and heads left out: inputs of an output matrix that the others can stand in for.
//!
//! A feed-forward neuron is an input of `output.dense`, a head a group of inputs of `attention.output.dense`. From the
//! first layer to the last, texts go through the whole network and through what is pruned so far; with `a`, `h` the
//! inputs and the residual stream in the whole network, and `â`, `ĥ` those in the other, the layer should now give
//!
//! ```text
//! h + W·a + b − ĥ  ≈  W'·â + b'        so W' starts at W + Σ (h − ĥ + W·(a − â))·âᵀ · H⁻¹,   H = Σ â·âᵀ
//! ```
//! and so makes up for what earlier layers lost (as He et al. 2017 fit pruned channels to the whole network's output).
//! `surgeon` then leaves inputs out; an input that is always 1 stands for the bias. As many stay in every layer, since a
//! network has one size for all.

use shared_model::text::host::Input;
use shared_model::text::{HostTextEncoder, TextError, TokenizedText};

use super::surgeon::Surgeon;
use super::weights::Weights;
use super::{PruneError, check_kept, tokens_of};
use crate::text_pack::PackSource;
use crate::text_pack::moments::SecondMoments;

/// Added to the diagonal of `H`, as a share of its mean: how far weights are held to what they were.
const DAMPING: f64 = 0.01;

/// Where inputs are left out.
struct Site {
    /// The inputs.
    input: Input,
    /// What the output is added to.
    residual: Input,
    /// The layer that takes them.
    output: &'static str,
    /// The layers that give them.
    sources: &'static [&'static str],
}

const NEURONS: Site = Site {
    input: Input::Output,
    residual: Input::Intermediate,
    output: "output.dense",
    sources: &["intermediate.dense"],
};

const HEADS: Site = Site {
    input: Input::AttentionOutput,
    residual: Input::Projection,
    output: "attention.output.dense",
    sources: &[
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
};

/// Groups of inputs of every layer.
struct Groups {
    len: usize,
    num: usize,
    num_kept: usize,
}

/// The encoder with `width` feed-forward neurons in every layer.
///
/// # Errors
/// There are not so many or none is to be kept, there are no texts, or the encoder is not sound.
pub fn neurons(
    parts: PackSource,
    texts: &[String],
    width: usize,
) -> Result<PackSource, PruneError> {
    let num = parts.config.intermediate_size;
    check_kept("intermediate_size", width, num)?;
    let groups = Groups {
        len: 1,
        num,
        num_kept: width,
    };
    let mut parts = without_inputs(parts, texts, &NEURONS, &groups)?;
    parts.config.intermediate_size = width;
    Ok(parts)
}

/// The encoder with `num` attention heads in every layer, as wide as they are.
///
/// # Errors
/// There are not so many or none is to be kept, there are no texts, or the encoder is not sound.
pub fn heads(parts: PackSource, texts: &[String], num: usize) -> Result<PackSource, PruneError> {
    parts.config.check()?;
    let head_size = parts.config.head_size();
    let num_heads = parts.config.num_attention_heads;
    check_kept("num_attention_heads", num, num_heads)?;
    let groups = Groups {
        len: head_size,
        num: num_heads,
        num_kept: num,
    };
    let mut parts = without_inputs(parts, texts, &HEADS, &groups)?;
    let config = &mut parts.config;
    config.num_attention_heads = num;
    config.attention_head_size = (num * head_size != config.hidden_size).then_some(head_size);
    Ok(parts)
}

/// What goes is silent, its weights zero, until every layer is done: a network of unequal layers cannot be built.
fn without_inputs(
    parts: PackSource,
    texts: &[String],
    site: &Site,
    groups: &Groups,
) -> Result<PackSource, PruneError> {
    let tokens = tokens_of(&parts, texts)?;
    let PackSource {
        config,
        tokenizer_json,
        tensors,
        len_max,
    } = parts;
    let whole = HostTextEncoder::from_named(config.clone(), tensors.clone())?;
    let mut weights = Weights::new(tensors);
    let mut kept = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let network = HostTextEncoder::from_named(config.clone(), weights.to_named())?;
        let output = format!("encoder.layer.{layer}.{}", site.output);
        let mut fit = Fit::new(matrix(&mut weights, &output));
        for text in &tokens {
            let wanted = Seen::of(&whole, text, layer, site)?;
            fit.add(&wanted, &Seen::of(&network, text, layer, site)?);
        }
        let mut surgeon = fit.surgeon(groups);
        surgeon.keep(groups.num_kept);
        put_matrix(&mut weights, &output, surgeon.weights());
        kept.push(surgeon.inputs());
    }
    for (layer, kept) in kept.iter().enumerate() {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for source in site.sources {
            weights.keep_rows(&name(&format!("{source}.weight")), kept);
            weights.keep_rows(&name(&format!("{source}.bias")), kept);
        }
        weights.keep_cols(&name(&format!("{}.weight", site.output)), kept);
    }
    Ok(PackSource {
        config,
        tokenizer_json,
        tensors: weights.into_named(),
        len_max,
    })
}

/// Weights of a linear layer by input, the bias last.
///
/// # Shapes
/// → `[inputs + 1, outputs]`.
fn matrix(weights: &mut Weights, name: &str) -> Vec<Vec<f64>> {
    let bias = weights.values(&format!("{name}.bias")).clone();
    let values = weights.values(&format!("{name}.weight"));
    let num_inputs = values.len() / bias.len();
    let column = |input: usize| {
        let weights = values.iter().skip(input).step_by(num_inputs);
        weights.map(|weight| f64::from(*weight)).collect()
    };
    let mut rows: Vec<Vec<f64>> = (0..num_inputs).map(column).collect();
    rows.push(bias.into_iter().map(f64::from).collect());
    rows
}

/// # Shapes
/// `rows`: as [`matrix`] gives them.
fn put_matrix(weights: &mut Weights, name: &str, rows: &[Vec<f64>]) {
    let (bias, rows) = rows.split_last().expect("a bias");
    let bias: Vec<f32> = bias.iter().map(|value| *value as f32).collect(); // as precise as weights are
    let output = |output: usize| rows.iter().map(move |row| row[output] as f32);
    let values = (0..bias.len()).flat_map(output).collect();
    *weights.values(&format!("{name}.weight")) = values;
    *weights.values(&format!("{name}.bias")) = bias;
}

/// What a network shows of one layer while it embeds a text, `[tokens, width]` each.
#[derive(Default)]
struct Seen {
    inputs: Vec<f32>,
    residual: Vec<f32>,
}

impl Seen {
    fn of(
        network: &HostTextEncoder,
        text: &TokenizedText,
        layer: usize,
        site: &Site,
    ) -> Result<Self, TextError> {
        let mut seen = Self::default();
        network.observe(text, |of_layer, input, rows| {
            if of_layer == layer && input == site.input {
                seen.inputs = rows.to_vec();
            } else if of_layer == layer && input == site.residual {
                seen.residual = rows.to_vec();
            }
        })?;
        Ok(seen)
    }
}

/// Sums over tokens for the weights of one layer.
struct Fit {
    /// `W` and `b`, `[inputs + 1, outputs]`.
    matrix: Vec<Vec<f64>>,
    /// `H`, with an input that is always 1.
    moments: SecondMoments,
    /// `Σ â·(h − ĥ + W·(a − â))ᵀ`, `[inputs + 1, outputs]`.
    cross: Vec<Vec<f64>>,
}

impl Fit {
    fn new(matrix: Vec<Vec<f64>>) -> Self {
        Self {
            moments: SecondMoments::new(matrix.len()),
            cross: vec![vec![0.0; matrix[0].len()]; matrix.len()],
            matrix,
        }
    }

    fn add(&mut self, wanted: &Seen, seen: &Seen) {
        let (num_inputs, dim) = (self.matrix.len() - 1, self.matrix[0].len());
        let (wanted_rows, seen_rows) = (
            wanted.inputs.chunks_exact(num_inputs),
            seen.inputs.chunks_exact(num_inputs),
        );
        let with_one: Vec<f32> = seen_rows
            .clone()
            .flat_map(|row| row.iter().copied().chain([1.0]))
            .collect();
        self.moments.add(&with_one);
        let differences = wanted.residual.iter().zip(&seen.residual);
        let mut missing: Vec<f64> = differences.map(|(a, b)| f64::from(a - b)).collect();
        for ((missing, wanted), seen) in missing
            .chunks_exact_mut(dim)
            .zip(wanted_rows)
            .zip(seen_rows)
        {
            for ((weights, wanted), seen) in self.matrix.iter().zip(wanted).zip(seen) {
                add_scaled(missing, f64::from(wanted - seen), weights);
            }
        }
        for (input, sums) in self.cross.iter_mut().enumerate() {
            for (row, missing) in with_one
                .chunks_exact(num_inputs + 1)
                .zip(missing.chunks_exact(dim))
            {
                add_scaled(sums, f64::from(row[input]), missing);
            }
        }
    }

    /// With weights that give what is wanted as nearly as all inputs can.
    fn surgeon(self, groups: &Groups) -> Surgeon {
        let Self {
            mut matrix,
            moments,
            cross,
        } = self;
        let inverse = moments.inverse(DAMPING);
        for (weights, shares) in matrix.iter_mut().zip(&inverse) {
            for (share, cross) in shares.iter().zip(&cross) {
                add_scaled(weights, *share, cross);
            }
        }
        Surgeon::new(matrix, inverse, groups.len, groups.num)
    }
}

fn add_scaled(sums: &mut [f64], times: f64, values: &[f64]) {
    if times == 0.0 {
        return;
    }
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += times * value;
    }
}
