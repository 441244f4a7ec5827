//! Presets: settings for kinds of applications, laid over the defaults and under everything the operator says.

use serde::{Deserialize, Serialize};

/// A kind of application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Things that are bought, often again
    Shop,
    /// Video and music
    Media,
    /// Articles that live for hours
    News,
    /// Feeds with likes and skips
    Social,
    /// Advertisements
    Ads,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Shop, Self::Media, Self::News, Self::Social, Self::Ads];

    /// What it sets, as TOML.
    #[must_use]
    pub fn toml(self) -> &'static str {
        match self {
            Self::Shop => include_str!("../../presets/shop.toml"),
            Self::Media => include_str!("../../presets/media.toml"),
            Self::News => include_str!("../../presets/news.toml"),
            Self::Social => include_str!("../../presets/social.toml"),
            Self::Ads => include_str!("../../presets/ads.toml"),
        }
    }

    /// As it is called in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Media => "media",
            Self::News => "news",
            Self::Social => "social",
            Self::Ads => "ads",
        }
    }
}
