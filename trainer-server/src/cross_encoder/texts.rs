//! What a CrossEncoder reads of a user and of an item.
//!
//! ```text
//! item            title, text
//! user of clicks  title, text; title, text; …             newest first, so that what is cut is oldest
//! user of ratings liked title, text; disliked title, text; …
//! ```
//! Ratings come in words that stand for parts of the scale. Liked items alone would hide what somebody
//! avoids, so others are named too, with their word.

use shared_model::event::Item;

/// Text of an item.
#[must_use]
pub fn item_text(item: &Item) -> String {
    match item.text.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("{}, {text}", item.title),
        None => item.title.clone(),
    }
}

/// A word for a grade on a scale from 0 to `grade_max`.
#[must_use]
pub fn rating_word(grade: f64, grade_max: f64) -> &'static str {
    let share = grade / grade_max;
    if share >= 0.9 {
        "loved"
    } else if share >= 0.7 {
        "liked"
    } else if share >= 0.5 {
        "fair"
    } else {
        "disliked"
    }
}

/// Text of a user from `(text of the item, word of its rating)`, newest first.
#[must_use]
pub fn user_text<'a>(seen: impl IntoIterator<Item = (&'a str, Option<&'static str>)>) -> String {
    let mut whole = String::new();
    for (text, word) in seen {
        if !whole.is_empty() {
            whole.push_str("; ");
        }
        if let Some(word) = word {
            whole.push_str(word);
            whole.push(' ');
        }
        whole.push_str(text);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_items_with_what_was_thought_of_them() {
        let item = |json| serde_json::from_value::<Item>(json).expect("item");
        let long =
            item(serde_json::json!({"item_id": "i", "title": "The Bank", "text": "1915, Comedy"}));
        let short = item(serde_json::json!({"item_id": "j", "title": "Mug", "text": ""}));
        assert_eq!(item_text(&long), "The Bank, 1915, Comedy");
        assert_eq!(item_text(&short), "Mug");
        let words = [9.0, 7.0, 5.0, 4.9].map(|grade| rating_word(grade, 10.0));
        assert_eq!(words, ["loved", "liked", "fair", "disliked"]);
        assert_eq!(
            user_text([("The Bank", Some("loved")), ("Mug", None)]),
            "loved The Bank; Mug"
        );
        assert_eq!(user_text([]), "");
    }
}
