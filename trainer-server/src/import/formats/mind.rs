//! MIND, Microsoft News (<https://msnews.github.io>, <https://github.com/msnews/msnews.github.io>): tables without a header.
//!
//! ```text
//! behaviors.tsv  impression  user  time (11/11/2019 9:05:58 AM)  history  impressions (N1-0 N2-1; no -0 or -1 in the test set)
//! news.tsv       news  category  subcategory  title  abstract  url  entities of the title  entities of the abstract
//! ```
//!
//! Every news shown becomes an impression at its place, and every `-1` a click besides. Times are read as UTC. The
//! history is left out, since its clicks have no times. Numbers of impressions begin anew in every file, so user and
//! time are part of their ids.

use serde_json::{Map, Value, json};

use super::{Candidate, Content, Part, Row, Shape, item, need};
use crate::import::{moment, sheet};

pub(super) const EXPECTED: &str = "behaviors.tsv and news.tsv, or their folder";

const BEHAVIOR: [&str; 5] = ["impression", "user", "time", "history", "impressions"];
const NEWS: [&str; 8] = [
    "news",
    "category",
    "subcategory",
    "title",
    "abstract",
    "url",
    "title_entities",
    "abstract_entities",
];

pub(super) fn part(candidate: &Candidate<'_>) -> Option<Part> {
    let tabs = Shape::Split("\t");
    match candidate.peeked.cells("\t").as_slice() {
        [_, _, time, _, _] if moment::from_us_text(time).is_some() => {
            Some(candidate.part(Content::Events, tabs, Some(&BEHAVIOR), events))
        }
        [news, _, _, _, _, url, _, _] if news.starts_with('N') && url.starts_with("http") => {
            Some(candidate.part(Content::Items, tabs, Some(&NEWS), news_item))
        }
        _ => None,
    }
}

fn events(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let time = sheet::plain(need(&row, "time")?);
    let Some(occurred_at) = moment::from_us_text(&time) else {
        return Err(format!(
            "time is `{time:.60}`, expected a moment like 11/11/2019 9:05:58 AM"
        ));
    };
    let user = sheet::plain(need(&row, "user")?);
    let impression_id = format!(
        "{}-{user}-{occurred_at}",
        sheet::plain(need(&row, "impression")?)
    );
    let event = |kind: &str, news: &str, position: usize| {
        json!({
            "kind": kind,
            "user_id": user,
            "item_id": news,
            "occurred_at": occurred_at,
            "impression_id": impression_id,
            "position": position,
        })
    };
    let shown = sheet::plain(need(&row, "impressions")?);
    let shown = shown
        .split_whitespace()
        .map(|shown| shown.rsplit_once('-').unwrap_or((shown, "")));
    let mut clicks = Vec::new();
    for (position, (news, label)) in shown.enumerate() {
        records.push(event("impression", news, position));
        match label {
            "1" => clicks.push(event("click", news, position)),
            "0" | "" => {}
            _ => {
                return Err(format!(
                    "impressions has `{news:.60}-{label:.20}`, expected -0 or -1 at its end"
                ));
            }
        }
    }
    records.extend(clicks);
    Ok(())
}

fn news_item(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let text = |name: &str| row.get(name).map(sheet::plain).unwrap_or_default();
    let [category, subcategory] = ["category", "subcategory"].map(text);
    let attributes = Map::from_iter([
        ("category".to_owned(), category.as_str().into()),
        ("subcategory".to_owned(), subcategory.as_str().into()),
    ]);
    let mut parts = vec![text("abstract"), category, subcategory];
    parts.retain(|part| !part.is_empty());
    let id = sheet::plain(need(&row, "news")?);
    records.push(item(&id, &text("title"), &parts.join(", "), attributes));
    Ok(())
}
