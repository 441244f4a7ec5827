//! Importers by name: files of well-known data sets and of other recommenders, known by how they begin.
//!
//! Whatever its name, a file is recognised by its columns or by the shape of its first row, so that a wrong one is an
//! error that says which importer reads it. Not here: how files are cut into rows (`rows`).

mod amazon;
mod gorse;
mod metarank;
mod mind;
mod movielens;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::rows::{Peeked, peek};
use super::{Content, ImportError, Mapper, Mapping, Part, Row, Shape, sheet};

/// Most files of a folder that are looked at.
const FILES_MAX: usize = 1000;
/// Longest title and text of an item, in bytes; what is longer is cut, as it is in no hand to shorten it.
const TITLE_BYTES_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Where files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Importer {
    /// MovieLens: ratings.csv and movies.csv, or ratings.dat and movies.dat, or u.data and u.item
    Movielens,
    /// MIND: behaviors.tsv and news.tsv
    Mind,
    /// Amazon reviews of 2018 or 2023: reviews and metadata in JSON Lines, or ratings in CSV
    Amazon,
    /// Gorse: feedback.csv and items.csv as its dashboard exports them
    Gorse,
    /// Metarank: events in JSON Lines
    Metarank,
}

/// What a file may be.
struct Candidate<'a> {
    path: &'a Path,
    peeked: &'a Peeked,
    mapping: &'a Mapping,
}

/// What is there to be read.
pub struct Found {
    /// Items first.
    pub parts: Vec<Part>,
    /// Files of folders that the importer has no use for.
    pub skipped: Vec<PathBuf>,
}

impl Importer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Movielens,
        Self::Mind,
        Self::Amazon,
        Self::Gorse,
        Self::Metarank,
    ];

    /// As on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Movielens => "movielens",
            Self::Mind => "mind",
            Self::Amazon => "amazon",
            Self::Gorse => "gorse",
            Self::Metarank => "metarank",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Movielens => movielens::EXPECTED,
            Self::Mind => mind::EXPECTED,
            Self::Amazon => amazon::EXPECTED,
            Self::Gorse => gorse::EXPECTED,
            Self::Metarank => metarank::EXPECTED,
        }
    }

    /// How the file is read; nothing where it is none of the importer's.
    fn parts_of(self, candidate: &Candidate<'_>) -> Vec<Part> {
        match self {
            Self::Movielens => movielens::part(candidate).into_iter().collect(),
            Self::Mind => mind::part(candidate).into_iter().collect(),
            Self::Amazon => amazon::part(candidate).into_iter().collect(),
            Self::Gorse => gorse::part(candidate).into_iter().collect(),
            Self::Metarank => metarank::parts(candidate),
        }
    }

    /// Files, and files of folders, in the order in which they are to be read.
    ///
    /// # Errors
    /// A file cannot be read, or a named one, or all of a folder, are none of the importer's.
    pub fn find(self, paths: &[PathBuf], mapping: &Mapping) -> Result<Found, ImportError> {
        let mut found = Found {
            parts: Vec::new(),
            skipped: Vec::new(),
        };
        for path in paths {
            let num_parts = found.parts.len();
            if path.is_dir() {
                for path in files_of(path)? {
                    self.add(path, mapping, &mut found)?;
                }
            } else {
                self.add(path.clone(), mapping, &mut found)?;
            }
            if found.parts.len() == num_parts {
                return Err(self.unknown(path)?);
            }
        }
        found.parts.sort_by_key(|part| part.content); // stable
        Ok(found)
    }

    fn add(self, path: PathBuf, mapping: &Mapping, found: &mut Found) -> Result<(), ImportError> {
        let peeked = &peek(&path)?;
        let parts = self.parts_of(&Candidate {
            path: &path,
            peeked,
            mapping,
        });
        if parts.is_empty() {
            found.skipped.push(path);
        } else {
            found.parts.extend(parts);
        }
        Ok(())
    }

    fn unknown(self, path: &Path) -> Result<ImportError, ImportError> {
        let files = match path.is_dir() {
            true => files_of(path)?,
            false => vec![path.to_owned()],
        };
        let mut fits = None;
        for file in files {
            fits = fits.or(fitting(&file, &peek(&file)?).first().copied());
        }
        let fits = match fits {
            Some(other) => format!("--from {} reads it", other.as_str()),
            None => "none of the other importers does; --events and --items read columns of any name with --map".to_owned(),
        };
        Ok(ImportError::Unknown {
            path: path.to_owned(),
            importer: self.as_str(),
            expected: self.expected(),
            fits,
        })
    }
}

/// Importers that read a file which begins like this.
pub(super) fn fitting(path: &Path, peeked: &Peeked) -> Vec<Importer> {
    let mapping = &Mapping::default();
    let candidate = Candidate {
        path,
        peeked,
        mapping,
    };
    let mut fitting = Importer::ALL.to_vec();
    fitting.retain(|importer| !importer.parts_of(&candidate).is_empty());
    fitting
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let failed = |source| ImportError::Unreadable {
        path: folder.to_owned(),
        line: 0,
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // An archive beside what was unpacked of it is no file of the set.
        if path.is_file() && path.extension().is_none_or(|extension| extension != "zip") {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            let reason = format!("more than {FILES_MAX} files in a folder");
            return Err(failed(std::io::Error::other(reason)));
        }
    }
    files.sort();
    Ok(files)
}

impl Candidate<'_> {
    fn part(
        &self,
        content: Content,
        shape: Shape,
        header: Option<&'static [&'static str]>,
        mapper: impl Mapper + 'static,
    ) -> Part {
        Part {
            path: self.path.to_owned(),
            content,
            shape,
            header,
            renames: Vec::new(),
            mapper: Box::new(mapper),
        }
    }

    /// Whether the first line is a header in CSV with these columns among others.
    fn has_columns(&self, columns: &[&str]) -> bool {
        let present = self.peeked.cells(",");
        columns.iter().all(|column| present.contains(column))
    }
}

/// A rating in HTTP shape.
fn rating(user_id: &Value, item_id: &Value, value: f64, occurred_at: i64) -> Value {
    json!({
        "kind": "rating",
        "user_id": sheet::plain(user_id),
        "item_id": sheet::plain(item_id),
        "value": value,
        "occurred_at": occurred_at,
    })
}

/// An item in HTTP shape; what has no title is called by its id.
fn item(item_id: &str, title: &str, text: &str, attributes: Map<String, Value>) -> Value {
    let title = if title.trim().is_empty() {
        item_id
    } else {
        title.trim()
    };
    json!({
        "item_id": item_id,
        "title": cut(title, TITLE_BYTES_MAX),
        "text": Some(cut(text.trim(), TEXT_BYTES_MAX)).filter(|text| !text.is_empty()),
        "attributes": attributes,
    })
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A field that a row must have.
fn need<'a>(row: &'a Row, name: &str) -> Result<&'a Value, String> {
    let value = row.get(name).filter(|value| !sheet::is_empty(value));
    value.ok_or_else(|| format!("{name} is missing"))
}

/// The first of these fields that a row has.
fn need_one<'a>(row: &'a Row, names: &[&str]) -> Result<&'a Value, String> {
    let found = names.iter().find_map(|name| need(row, name).ok()); // the next name is tried
    found.ok_or_else(|| format!("{} is missing", names.join(" or ")))
}

/// A text or a list of texts as one text; nothing where there is neither.
fn joined(value: Option<&Value>, separator: &str) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            texts.join(separator)
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
