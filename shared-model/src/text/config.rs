//! Sizes of a BERT-family encoder, as Hugging Face writes them into `config.json`.
//!
//! Keys that do not change the result (dropout, initializer) are skipped; those that ask for
//! another architecture are refused. One key is our own: `attention_head_size`, of networks whose heads were pruned.

use serde::{Deserialize, Serialize};

use super::TextError;

/// What of `config.json` determines the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// Number of word embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states and of an embedding.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer; divides `hidden_size` where `attention_head_size` is absent.
    pub num_attention_heads: usize,
    /// Width of one head where it is not `hidden_size / num_attention_heads`, since heads were pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_head_size: Option<usize>,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of position embeddings, the longest sequence.
    pub max_position_embeddings: usize,
    /// Number of token type embeddings; only type 0 is used.
    pub type_vocab_size: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
    /// Activation of the feed-forward layer; only `gelu`, the exact one with erf.
    #[serde(default = "gelu")]
    pub hidden_act: String,
    /// How positions enter; only `absolute`.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl BertConfig {
    /// Reads `config.json` and checks every size.
    ///
    /// # Errors
    /// Not JSON, a size missing, out of bounds, or an architecture that is not supported.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        let config: Self = serde_json::from_slice(bytes).map_err(|error| TextError::Config {
            reason: error.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Width of one attention head.
    #[must_use]
    pub fn head_size(&self) -> usize {
        let whole = self.hidden_size / self.num_attention_heads;
        self.attention_head_size.unwrap_or(whole)
    }

    /// Width of all heads of a layer side by side: outputs of its queries, of its keys and of its values.
    #[must_use]
    pub fn attention_size(&self) -> usize {
        self.num_attention_heads * self.head_size()
    }

    /// Checks every size, so that a config from outside cannot ask for absurd memory.
    ///
    /// # Errors
    /// Names the field, its value and what is supported.
    pub fn check(&self) -> Result<(), TextError> {
        let bounded = [
            ("vocab_size", self.vocab_size, 1, 1 << 20, "1 to 1048576"),
            ("hidden_size", self.hidden_size, 1, 2048, "1 to 2048"),
            (
                "num_hidden_layers",
                self.num_hidden_layers,
                1,
                48,
                "1 to 48",
            ),
            (
                "num_attention_heads",
                self.num_attention_heads,
                1,
                64,
                "1 to 64",
            ),
            (
                "intermediate_size",
                self.intermediate_size,
                1,
                16_384,
                "1 to 16384",
            ),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                8,
                8192,
                "8 to 8192",
            ),
            ("type_vocab_size", self.type_vocab_size, 1, 16, "1 to 16"),
        ];
        for (field, actual, min, max, expected) in bounded {
            if actual < min || actual > max {
                return Err(TextError::ConfigField {
                    field,
                    actual: actual.to_string(),
                    expected,
                });
            }
        }
        self.check_heads()?;
        let eps = self.layer_norm_eps;
        if !(eps > 0.0 && eps < 0.1) {
            let (actual, expected) = (eps.to_string(), "above 0 and below 0.1");
            return Err(TextError::ConfigField {
                field: "layer_norm_eps",
                actual,
                expected,
            });
        }
        self.check_architecture()
    }

    /// Heads fill the hidden states, or are narrower together: no head is wider than it would be without pruning.
    fn check_heads(&self) -> Result<(), TextError> {
        let (field, actual, expected) = match self.attention_head_size {
            None if self.hidden_size.is_multiple_of(self.num_attention_heads) => return Ok(()),
            None => (
                "num_attention_heads",
                self.num_attention_heads,
                "a divisor of hidden_size",
            ),
            Some(size) if (1..=self.hidden_size / self.num_attention_heads).contains(&size) => {
                return Ok(());
            }
            Some(size) => (
                "attention_head_size",
                size,
                "1 to hidden_size / num_attention_heads",
            ),
        };
        let actual = actual.to_string();
        Err(TextError::ConfigField {
            field,
            actual,
            expected,
        })
    }

    fn check_architecture(&self) -> Result<(), TextError> {
        let fixed = [
            ("hidden_act", &self.hidden_act, "gelu"),
            (
                "position_embedding_type",
                &self.position_embedding_type,
                "absolute",
            ),
        ];
        for (field, actual, expected) in fixed {
            if actual != expected {
                return Err(TextError::ConfigField {
                    field,
                    actual: actual.clone(),
                    expected,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Smallest network that has everything in it.
    pub(in super::super) fn tiny() -> BertConfig {
        BertConfig {
            vocab_size: 12,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            attention_head_size: None,
            intermediate_size: 6,
            max_position_embeddings: 16,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: gelu(),
            position_embedding_type: absolute(),
        }
    }

    #[test]
    fn skips_keys_that_change_nothing_and_refuses_other_architectures() {
        let mut json = serde_json::to_value(tiny()).expect("plain values");
        json["hidden_dropout_prob"] = 0.1.into();
        let read = BertConfig::from_json(json.to_string().as_bytes());
        assert_eq!(read, Ok(tiny()));

        json["hidden_act"] = "relu".into();
        let refused = BertConfig::from_json(json.to_string().as_bytes());
        assert!(matches!(
            refused,
            Err(TextError::ConfigField {
                field: "hidden_act",
                ..
            })
        ));
    }

    /// [`tiny`] with three heads of width 2, of the four that its width has room for.
    pub(in super::super) fn tiny_with_pruned_heads() -> BertConfig {
        BertConfig {
            num_attention_heads: 3,
            attention_head_size: Some(2),
            ..tiny()
        }
    }

    #[test]
    fn a_head_size_is_written_only_where_there_is_one() {
        let json = |config: &BertConfig| serde_json::to_string(config).expect("plain values");
        assert!(!json(&tiny()).contains("attention_head_size"));
        let pruned = tiny_with_pruned_heads();
        assert_eq!(BertConfig::from_json(json(&pruned).as_bytes()), Ok(pruned));
        assert_eq!(tiny_with_pruned_heads().attention_size(), 6);
        assert_eq!((tiny().head_size(), tiny().attention_size()), (4, 8));
    }

    #[test]
    fn heads_wider_than_the_hidden_states_are_named() {
        for size in [0, 3, 1 << 40] {
            let config = BertConfig {
                attention_head_size: Some(size),
                ..tiny_with_pruned_heads()
            };
            let expected = TextError::ConfigField {
                field: "attention_head_size",
                actual: size.to_string(),
                expected: "1 to hidden_size / num_attention_heads",
            };
            assert_eq!(config.check(), Err(expected));
        }
    }

    #[test]
    fn absurd_sizes_are_named() {
        let config = BertConfig {
            vocab_size: 1 << 30,
            ..tiny()
        };
        assert!(matches!(
            config.check(),
            Err(TextError::ConfigField {
                field: "vocab_size",
                ..
            })
        ));
        let config = BertConfig {
            num_attention_heads: 3,
            ..tiny()
        };
        assert!(matches!(
            config.check(),
            Err(TextError::ConfigField {
                field: "num_attention_heads",
                ..
            })
        ));
        let config = BertConfig {
            layer_norm_eps: f64::NAN,
            ..tiny()
        };
        assert!(matches!(
            config.check(),
            Err(TextError::ConfigField {
                field: "layer_norm_eps",
                ..
            })
        ));
    }
}
