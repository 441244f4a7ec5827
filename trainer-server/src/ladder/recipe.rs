//! Recipes: how an encoder is made smaller, so that it can be stored and repeated for the next one.

use serde::{Deserialize, Serialize};
use shared_model::text::BertConfig;
use shared_model::text::packed::PACKED_BYTES_MAX;

use super::LadderError;

/// Largest file of a recipe that is read, in bytes.
pub const RECIPE_BYTES_MAX: usize = 4096;

/// A million updates take days.
const DISTILL_STEPS_MAX: usize = 1_000_000;
/// More than any vocabulary.
const MORE_TOKENS_MAX: usize = 1 << 20;

/// What is made of an encoder. What is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Layers that are kept, those that matter most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_layers: Option<usize>,
    /// Feed-forward neurons of a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_neurons: Option<usize>,
    /// Attention heads of a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<usize>,
    /// Tokens that are kept beside those that texts use and all characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_more_tokens: Option<usize>,
    /// Updates by which it learns from its parent; 0 for none.
    #[serde(default)]
    pub distill_steps: usize,
    /// Bytes of the packed file, tokenizer included.
    pub bytes_max: usize,
}

impl Recipe {
    /// Reads a recipe and checks every field that can be checked without an encoder.
    ///
    /// # Errors
    /// Not the JSON of a recipe, or a value out of bounds.
    pub fn from_json(bytes: &[u8]) -> Result<Self, LadderError> {
        let unreadable = |reason: String| LadderError::Unreadable { reason };
        if bytes.len() > RECIPE_BYTES_MAX {
            let actual = bytes.len();
            return Err(unreadable(format!(
                "{actual} bytes, at most {RECIPE_BYTES_MAX} are read"
            )));
        }
        let recipe: Self =
            serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        recipe.check(None)?;
        Ok(recipe)
    }

    /// Checks every field, beside `config` where there is one.
    ///
    /// # Errors
    /// Names the field, its value and what is supported.
    pub fn check(&self, config: Option<&BertConfig>) -> Result<(), LadderError> {
        let most = |of: fn(&BertConfig) -> usize| config.map_or(usize::MAX, of);
        let kept = [
            ("num_layers", self.num_layers, most(|c| c.num_hidden_layers)),
            (
                "num_neurons",
                self.num_neurons,
                most(|c| c.intermediate_size),
            ),
            ("num_heads", self.num_heads, most(|c| c.num_attention_heads)),
        ];
        for (field, kept, most) in kept {
            if let Some(kept) = kept
                && !(1..=most).contains(&kept)
            {
                return Err(out_of_bounds(field, kept, 1, most));
            }
        }
        let bounded = [
            (
                "num_more_tokens",
                self.num_more_tokens.unwrap_or(0),
                0,
                MORE_TOKENS_MAX,
            ),
            ("distill_steps", self.distill_steps, 0, DISTILL_STEPS_MAX),
            ("bytes_max", self.bytes_max, 1, PACKED_BYTES_MAX),
        ];
        for (field, actual, min, max) in bounded {
            if !(min..=max).contains(&actual) {
                return Err(out_of_bounds(field, actual, min, max));
            }
        }
        Ok(())
    }

    /// Short, for tables: what is kept of each, the steps, and megabytes.
    #[must_use]
    pub fn name(&self) -> String {
        let kept = [
            (self.num_layers, "layers"),
            (self.num_neurons, "neurons"),
            (self.num_heads, "heads"),
            (self.num_more_tokens, "more words"),
        ];
        let mut parts: Vec<String> = kept
            .iter()
            .filter_map(|(num, what)| Some(format!("{} {what}", (*num)?)))
            .collect();
        if parts.is_empty() {
            parts.push("whole".to_owned());
        }
        if self.distill_steps > 0 {
            parts.push("distilled".to_owned());
        }
        let megabytes = self.bytes_max as f64 / 1e6; // far below 2^52
        format!("{} in {megabytes:.1} MB", parts.join(", "))
    }

    /// The same without the size of its file: what is made before anything is rounded.
    #[must_use]
    pub fn before_packing(&self) -> Self {
        Self {
            bytes_max: 0,
            ..self.clone()
        }
    }

    /// Whether it leaves the network as it is and only packs it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.before_packing() == Self::default()
    }
}

fn out_of_bounds(field: &'static str, actual: usize, min: usize, max: usize) -> LadderError {
    LadderError::Recipe {
        field,
        actual: actual.to_string(),
        expected: match max {
            usize::MAX => format!("at least {min}"),
            max => format!("{min} to {max}"),
        },
    }
}

/// Recipes worth trying for a network of these sizes, each for every size of its file, the gentlest first.
///
/// Tokens go before layers, since a page spells most words of a large vocabulary never; half of the layers before two
/// thirds; neurons and heads only where layers have gone, since they save less time for their loss.
#[must_use]
pub fn candidates(config: &BertConfig, targets: &[usize], distill_steps: usize) -> Vec<Recipe> {
    let part = |of: usize, num: usize, den: usize| Some((of * num / den).max(1));
    let layers = |num, den| part(config.num_hidden_layers, num, den);
    let neurons = |num, den| part(config.intermediate_size, num, den);
    let heads = |num, den| part(config.num_attention_heads, num, den);
    let whole = Recipe::default();
    let words = |num_more| Recipe {
        num_more_tokens: Some(num_more),
        ..whole.clone()
    };
    let distilled = Recipe {
        distill_steps,
        ..words(4_000)
    };
    let networks = vec![
        whole.clone(),
        words(12_000),
        words(4_000),
        Recipe {
            num_layers: layers(2, 3),
            ..distilled.clone()
        },
        Recipe {
            num_layers: layers(1, 2),
            ..distilled.clone()
        },
        Recipe {
            num_layers: layers(1, 2),
            num_neurons: neurons(1, 2),
            ..distilled.clone()
        },
        Recipe {
            num_layers: layers(1, 3),
            ..distilled.clone()
        },
        Recipe {
            num_layers: layers(1, 3),
            num_neurons: neurons(1, 2),
            num_heads: heads(2, 3),
            ..distilled
        },
    ];
    let of_sizes = |network: Recipe| {
        targets.iter().map(move |bytes_max| Recipe {
            bytes_max: *bytes_max,
            ..network.clone()
        })
    };
    networks.into_iter().flat_map(of_sizes).collect()
}
