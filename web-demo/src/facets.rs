//! What a taste can be about: the category, colour, material and style of an item.
//!
//! A real dataset has titles only; there the category is the most common of the title's words, and the rest is unknown.

use std::collections::HashMap;

/// One kind of property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Facet {
    Category,
    Colour,
    Material,
    Style,
}

impl Facet {
    pub(crate) const ALL: [Self; 4] = [Self::Category, Self::Colour, Self::Material, Self::Style];

    pub(crate) fn idx(self) -> usize {
        self as usize // declaration order is the order of `ALL`
    }

    /// Column of `items.tsv`.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Category => "category",
            Self::Colour => "colour",
            Self::Material => "material",
            Self::Style => "style",
        }
    }
}

/// An item of the shop.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShopItem {
    pub(crate) item_id: String,
    pub(crate) title: String,
    pub(crate) price: f64,
    /// Text of each facet in the order of [`Facet::ALL`]; empty where unknown.
    pub(crate) facets: [String; 4],
}

impl ShopItem {
    pub(crate) fn facet(&self, facet: Facet) -> &str {
        &self.facets[facet.idx()]
    }
}

/// Words that say nothing about what a thing is.
const STOP_WORDS: [&str; 16] = [
    "of", "and", "the", "with", "in", "for", "set", "pack", "small", "large", "design", "assorted",
    "box", "to", "a", "on",
];
/// More categories than that are no help when browsing.
const CATEGORIES_MAX: usize = 14;
const OTHER: &str = "Other";

/// Gives every item without a category one: the most common telling word of its title.
pub(crate) fn fill_categories(items: &mut [ShopItem]) {
    if items
        .iter()
        .any(|item| !item.facet(Facet::Category).is_empty())
    {
        return;
    }
    let common = common_words(items);
    for item in items {
        let words: Vec<String> = telling_words(&item.title).collect();
        let best = common.iter().find(|word| words.contains(word));
        item.facets[Facet::Category.idx()] =
            best.map_or_else(|| OTHER.to_owned(), |word| capitalized(word));
    }
}

fn common_words(items: &[ShopItem]) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for item in items {
        for word in telling_words(&item.title) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let mut ranked: Vec<(String, usize)> = counts.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked.truncate(CATEGORIES_MAX);
    ranked.into_iter().map(|(word, _count)| word).collect()
}

fn telling_words(title: &str) -> impl Iterator<Item = String> + '_ {
    let words = title
        .split(|letter: char| !letter.is_alphabetic())
        .map(str::to_lowercase);
    words.filter(|word| {
        word.len() > 2 && !STOP_WORDS.contains(&word.as_str()) && colour_of(word).is_none()
    })
}

/// Colour words of real titles, with the value that the page paints.
const PLAIN_COLOURS: [(&str, &str); 16] = [
    ("red", "#c4473f"),
    ("pink", "#e29bb0"),
    ("blue", "#5b83bd"),
    ("green", "#6a9c6a"),
    ("white", "#e9e4d8"),
    ("black", "#4a4a4d"),
    ("ivory", "#e6dcc0"),
    ("cream", "#e6dcc0"),
    ("gold", "#cfa94f"),
    ("silver", "#b8bcc2"),
    ("purple", "#8a6aa8"),
    ("yellow", "#e3c04d"),
    ("orange", "#dd8a45"),
    ("brown", "#8b6a4d"),
    ("turquoise", "#5fb3b0"),
    ("grey", "#8f9296"),
];

/// The value of the first colour word in `text`.
pub(crate) fn colour_of(text: &str) -> Option<&'static str> {
    let mut words = text
        .split(|letter: char| !letter.is_alphabetic())
        .map(str::to_lowercase);
    words.find_map(|word| {
        PLAIN_COLOURS
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, value)| *value)
    })
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titled(title: &str) -> ShopItem {
        let facets = [const { String::new() }; 4];
        ShopItem {
            item_id: title.to_owned(),
            title: title.to_owned(),
            price: 1.0,
            facets,
        }
    }

    #[test]
    fn a_title_without_category_gets_its_most_common_telling_word() {
        let mut items = vec![
            titled("RED RETROSPOT MUG"),
            titled("MUG OF TEA"),
            titled("SET OF 3 BAGS"),
        ];
        fill_categories(&mut items);
        assert_eq!(items[0].facet(Facet::Category), "Mug");
        assert_eq!(items[1].facet(Facet::Category), "Mug");
        assert_eq!(items[2].facet(Facet::Category), "Bags");
    }

    #[test]
    fn finds_the_colour_word_of_a_title() {
        assert_eq!(colour_of("CREAM HANGING HEART"), Some("#e6dcc0"));
        assert_eq!(colour_of("HANGING HEART"), None);
    }
}
