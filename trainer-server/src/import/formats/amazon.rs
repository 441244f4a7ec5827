//! Amazon reviews of McAuley's lab, 2018 (<https://nijianmo.github.io/amazon>) and 2023 (<https://amazon-reviews-2023.github.io>).
//!
//! ```text
//! reviews, JSON Lines   2018  reviewerID  asin  overall  unixReviewTime (seconds)
//!                       2023  user_id  parent_asin  rating  timestamp (milliseconds)
//! metadata, JSON Lines  2018  asin  title  description  category  brand  price
//!                       2023  parent_asin  title  description  features  categories  main_category  store  price
//! ratings, CSV          2018  item,user,rating,seconds without a header (user,item before 2018)
//!                       2023  user_id,parent_asin,rating,timestamp (milliseconds)
//! ```
//!
//! Items of 2023 are the parents of their variants. What has no title is called by its id.

use serde_json::{Map, Value};

use super::{Candidate, Content, Part, Row, Shape, item, joined, need, need_one, rating};
use crate::import::{moment, sheet};

pub(super) const EXPECTED: &str = "reviews or metadata in JSON Lines, or ratings in CSV, of the sets of 2018 or 2023, as .gz or unpacked";

const ITEM: [&str; 2] = ["parent_asin", "asin"];
const USER: [&str; 2] = ["user_id", "reviewerID"];
const RATING: [&str; 2] = ["rating", "overall"];

pub(super) fn part(candidate: &Candidate<'_>) -> Option<Part> {
    let ratings = |header| Some(candidate.part(Content::Events, Shape::Csv(b','), header, event));
    if candidate.has_columns(&["user_id", "parent_asin", "rating", "timestamp"]) {
        return ratings(None);
    }
    if let [first, second, rating, secs] = candidate.peeked.cells(",").as_slice()
        && rating.parse::<f64>().is_ok()
        && secs.parse::<i64>().is_ok()
    {
        return match (is_asin(first), is_asin(second)) {
            (true, false) => ratings(Some(&["asin", "reviewerID", "overall", "unixReviewTime"])),
            (false, true) => ratings(Some(&["reviewerID", "asin", "overall", "unixReviewTime"])),
            _ => None,
        };
    }
    let fields = candidate.peeked.fields(&[]);
    let has_one = |names: &[&str]| fields.iter().any(|field| names.contains(&field.as_str()));
    if !has_one(&ITEM) {
        None
    } else if has_one(&USER) && has_one(&RATING) {
        Some(candidate.part(Content::Events, Shape::JsonLines, None, event))
    } else if has_one(&["title"]) {
        Some(candidate.part(Content::Items, Shape::JsonLines, None, product))
    } else {
        None
    }
}

/// Numbers of products have ten characters and begin with B or, for books, a digit; users begin with A.
fn is_asin(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first == 'B' || first.is_ascii_digit());
    text.len() == 10 && begins
}

fn event(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let occurred_at = match row.get("timestamp") {
        Some(millis) => moment::from_millis("timestamp", millis)?,
        None => moment::from_secs("unixReviewTime", need(&row, "unixReviewTime")?)?,
    };
    let value = sheet::number("rating", need_one(&row, &RATING)?)?;
    let (user, product) = (need_one(&row, &USER)?, need_one(&row, &ITEM)?);
    records.push(rating(user, product, value, occurred_at));
    Ok(())
}

fn product(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let id = sheet::plain(need_one(&row, &ITEM)?);
    let categories = joined(row.get("categories").or(row.get("category")), ", ");
    let mut parts = vec![
        categories,
        joined(row.get("features"), " "),
        joined(row.get("description"), " "),
    ];
    parts.retain(|part| !part.is_empty());
    let mut attributes = Map::new();
    for name in ["main_category", "main_cat", "brand", "store", "price"] {
        // Some prices of 2018 hold a piece of a page.
        if let Some(value) = row.get(name)
            && !sheet::is_empty(value)
            && sheet::plain(value).len() <= 200
        {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    records.push(item(
        &id,
        &joined(row.get("title"), " "),
        &parts.join(". "),
        attributes,
    ));
    Ok(())
}
