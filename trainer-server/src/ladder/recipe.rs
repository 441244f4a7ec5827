//! Recipes: how an encoder is made smaller, so that it can be stored and repeated for the next one.

use serde::{Deserialize, Serialize};
use shared_model::text::BertConfig;
use shared_model::text::low_rank::RANK_MAX;
use shared_model::text::packed::PACKED_BYTES_MAX;

use super::LadderError;
use crate::text_pack::PackOptions;

/// Largest file of a recipe that is read, in bytes.
pub const RECIPE_BYTES_MAX: usize = 4096;

/// The nearest code.
const ZERO_PERCENT: u8 = 50;
/// Beyond a whole step the nearest codes of what is left are 1 and more.
const ZERO_PERCENT_MAX: usize = 100;
/// Of the recipe that is tried with zeros: a little more than the nearest code would make.
const SPARSE_PERCENT: u8 = 60;
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
    /// Updates by which what the recipe made of one encoder goes on for the next; a quarter of `distill_steps` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_steps: Option<usize>,
    /// Rank of the change by which it goes on instead, in one step at least, beside a file that stays, so that pages fetch
    /// the change alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_rank: Option<usize>,
    /// Whether steps of matrices go by what rounding each does to embeddings, instead of the same share for all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mixed_steps: bool,
    /// Percent of a step below which a weight becomes 0 in the file; 50, the nearest code, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_percent: Option<u8>,
    /// Whether the last third of the updates is learned with weights rounded as they will be (quantization-aware).
    #[serde(default, skip_serializing_if = "is_false")]
    pub learn_rounded: bool,
    /// Bytes of the packed file, tokenizer included.
    pub bytes_max: usize,
}

fn is_false(value: &bool) -> bool {
    !value
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
            (
                "follow_steps",
                self.follow_steps.unwrap_or(0),
                0,
                DISTILL_STEPS_MAX,
            ),
            ("follow_rank", self.follow_rank.unwrap_or(1), 1, RANK_MAX),
            ("bytes_max", self.bytes_max, 1, PACKED_BYTES_MAX),
        ];
        let percent = usize::from(self.zero_percent.unwrap_or(ZERO_PERCENT));
        let zero_percent = (
            "zero_percent",
            percent,
            usize::from(ZERO_PERCENT),
            ZERO_PERCENT_MAX,
        );
        let follow_steps = self.follow_rank.map(|_| {
            let (field, actual) = ("follow_steps", self.num_steps(true));
            (field, actual, 1, DISTILL_STEPS_MAX)
        });
        let more = [Some(zero_percent), follow_steps].into_iter().flatten();
        for (field, actual, min, max) in bounded.into_iter().chain(more) {
            if !(min..=max).contains(&actual) {
                return Err(out_of_bounds(field, actual, min, max));
            }
        }
        Ok(())
    }

    /// How what it makes is rounded.
    #[must_use]
    pub fn packing(&self) -> PackOptions {
        PackOptions {
            mixed_steps: self.mixed_steps,
            zero_percent: self.zero_percent.unwrap_or(ZERO_PERCENT),
            ..PackOptions::within(self.bytes_max)
        }
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
        if self.learn_rounded {
            parts.push("rounded while it learns".to_owned());
        }
        if self.mixed_steps {
            parts.push("mixed steps".to_owned());
        }
        if let Some(percent) = self.zero_percent {
            parts.push(format!("zero below {percent} % of a step"));
        }
        let megabytes = self.bytes_max as f64 / 1e6; // far below 2^52
        format!("{} in {megabytes:.1} MB", parts.join(", "))
    }

    /// The same without what its file depends on alone: what is made before anything is rounded.
    #[must_use]
    pub fn before_packing(&self) -> Self {
        Self {
            // Learning with rounded weights knows the size of the file.
            bytes_max: if self.learn_rounded {
                self.bytes_max
            } else {
                0
            },
            mixed_steps: false,
            zero_percent: None,
            ..self.clone()
        }
    }

    /// Updates of a student: of a new one, or of one that goes on.
    #[must_use]
    pub fn num_steps(&self, goes_on: bool) -> usize {
        match goes_on {
            true => self.follow_steps.unwrap_or(self.distill_steps / 4),
            false => self.distill_steps,
        }
    }

    /// Whether a network has the sizes that it makes of `parent`, so that it may go on from it.
    #[must_use]
    pub fn has_made(&self, made: &BertConfig, parent: &BertConfig) -> bool {
        let kept = |kept: Option<usize>, of: usize| kept.unwrap_or(of);
        let has_words = match self.num_more_tokens {
            Some(_) => made.vocab_size <= parent.vocab_size,
            None => made.vocab_size == parent.vocab_size,
        };
        made.hidden_size == parent.hidden_size
            && made.num_hidden_layers == kept(self.num_layers, parent.num_hidden_layers)
            && made.intermediate_size == kept(self.num_neurons, parent.intermediate_size)
            && made.num_attention_heads == kept(self.num_heads, parent.num_attention_heads)
            && has_words
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

/// Recipes worth trying for a network of these sizes, the gentlest first.
///
/// Tokens go before layers, since a page spells most words of a large vocabulary never; half of the layers before two
/// thirds; neurons and heads only where layers have gone, since they save less time for their loss. Networks with all
/// layers are tried for every size of the file, smaller ones for the smallest alone: they lose little by rounding. Steps
/// are mixed, except in the whole network, which the others are timed beside.
#[must_use]
pub fn candidates(config: &BertConfig, targets: &[usize], distill_steps: usize) -> Vec<Recipe> {
    let part = |of: usize, num: usize, den: usize| Some((of * num / den).max(1));
    let layers = |num, den| part(config.num_hidden_layers, num, den);
    let neurons = |num, den| part(config.intermediate_size, num, den);
    let heads = |num, den| part(config.num_attention_heads, num, den);
    let words = Recipe {
        num_more_tokens: Some(4_000),
        mixed_steps: true,
        ..Recipe::default()
    };
    let of_size = |recipe: &Recipe, bytes_max: usize| Recipe {
        bytes_max,
        ..recipe.clone()
    };
    let smallest = targets.iter().min().copied().unwrap_or_default();
    let largest = targets.iter().max().copied().unwrap_or_default();
    let whole = Recipe::default();
    let mut recipes = vec![of_size(&whole, largest), of_size(&whole, smallest)];
    recipes.dedup();
    recipes.extend(targets.iter().map(|bytes_max| of_size(&words, *bytes_max)));
    recipes.push(Recipe {
        zero_percent: Some(SPARSE_PERCENT),
        ..of_size(&words, smallest)
    });
    let sizes = [
        (layers(2, 3), None, None),
        (layers(1, 2), None, None),
        (layers(1, 2), neurons(1, 2), None),
        (layers(1, 3), neurons(2, 3), None),
        (layers(1, 3), neurons(1, 3), heads(2, 3)),
    ];
    recipes.extend(sizes.map(|(num_layers, num_neurons, num_heads)| Recipe {
        num_layers,
        num_neurons,
        num_heads,
        distill_steps,
        ..of_size(&words, smallest)
    }));
    recipes
}
