//! MovieLens (<https://grouplens.org/datasets/movielens/>), of all three kinds of files.
//!
//! ```text
//! since 20M   ratings.csv  userId,movieId,rating,timestamp       movies.csv  movieId,title,genres
//! 1M, 10M     ratings.dat  user::movie::rating::timestamp        movies.dat  movie::title::genres    (Latin-1)
//! 100K        u.data       user TAB movie TAB rating TAB timestamp   u.item  movie|title|…, 24 cells (Latin-1)
//! ```

use serde_json::{Map, Value};

use super::{Candidate, Content, Part, Row, Shape, item, need, rating};
use crate::import::{moment, sheet};

pub(super) const EXPECTED: &str = "ratings.csv and movies.csv, or ratings.dat and movies.dat, or u.data and u.item, or their folder";

const RATING: [&str; 4] = ["userId", "movieId", "rating", "timestamp"];
const MOVIE: [&str; 3] = ["movieId", "title", "genres"];
/// Cells of u.item; from the sixth on they are genres, 1 where it has them.
const MOVIE_100K: [&str; 24] = [
    "movieId",
    "title",
    "released",
    "video_released",
    "imdb_url",
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

pub(super) fn part(candidate: &Candidate<'_>) -> Option<Part> {
    let ratings = |shape, header| Some(candidate.part(Content::Events, shape, header, event));
    let movies = |shape, header| Some(candidate.part(Content::Items, shape, header, movie));
    if candidate.has_columns(&RATING) {
        return ratings(Shape::Csv(b','), None);
    }
    if candidate.has_columns(&MOVIE) {
        return movies(Shape::Csv(b','), None);
    }
    let cells = |separator| candidate.peeked.cells(separator);
    let are_numbers = |cells: &[&str]| cells.iter().all(|cell| cell.parse::<f64>().is_ok());
    for separator in ["::", "\t"] {
        let cells = cells(separator);
        if cells.len() == RATING.len() && are_numbers(&cells) {
            return ratings(Shape::Split(separator), Some(&RATING));
        }
    }
    match (cells("::").as_slice(), cells("|").as_slice()) {
        ([id, _, _], _) if are_numbers(&[id]) => movies(Shape::Split("::"), Some(&MOVIE)),
        (_, [id, .., flag]) if are_numbers(&[id, flag]) && cells("|").len() == MOVIE_100K.len() => {
            movies(Shape::Split("|"), Some(&MOVIE_100K))
        }
        _ => None,
    }
}

fn event(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let value = sheet::number("rating", need(&row, "rating")?)?;
    let occurred_at = moment::from_secs("timestamp", need(&row, "timestamp")?)?;
    let (user, movie) = (need(&row, "userId")?, need(&row, "movieId")?);
    records.push(rating(user, movie, value, occurred_at));
    Ok(())
}

fn movie(row: Row, records: &mut Vec<Value>) -> Result<(), String> {
    let mut genres: Vec<&str> = match row.get("genres").and_then(Value::as_str) {
        Some(genres) => genres.split('|').collect(),
        None => MOVIE_100K[5..]
            .iter()
            .copied()
            .filter(|genre| row.get(*genre).is_some_and(|flag| flag == "1"))
            .collect(),
    };
    genres.retain(|genre| !["", "unknown", "(no genres listed)"].contains(genre));
    let attributes = Map::from_iter([("genres".to_owned(), genres.as_slice().into())]);
    let (id, title) = (sheet::plain(need(&row, "movieId")?), need(&row, "title")?);
    records.push(item(
        &id,
        &sheet::plain(title),
        &genres.join(", "),
        attributes,
    ));
    Ok(())
}
