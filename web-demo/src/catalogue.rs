//! The catalogue as the page reads it: `items.json`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::dataset::read_items;
use crate::facets::{Facet, ShopItem, colour_of};
use crate::vocabulary::COLOURS;

/// Where from and where to.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Dataset folder.
    #[arg(long)]
    dataset: PathBuf,
    /// File to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct PageItem<'a> {
    item_id: &'a str,
    title: &'a str,
    price: f64,
    category: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    style: &'a str,
    /// What the picture of the item is painted in.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<&'static str>,
}

/// # Errors
/// The dataset cannot be read or the file not be written.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let items = read_items(&options.dataset)?;
    let page_items: Vec<PageItem<'_>> = items.iter().map(page_item).collect();
    let json = serde_json::to_vec(&page_items)?;
    fs::write(&options.out, json).with_context(|| format!("cannot write {}", options.out.display()))
}

fn page_item(item: &ShopItem) -> PageItem<'_> {
    let named = COLOURS
        .iter()
        .find(|(name, _)| *name == item.facet(Facet::Colour))
        .map(|(_, value)| *value);
    PageItem {
        item_id: &item.item_id,
        title: &item.title,
        price: item.price,
        category: item.facet(Facet::Category),
        style: item.facet(Facet::Style),
        hex: named.or_else(|| colour_of(&item.title)),
    }
}
