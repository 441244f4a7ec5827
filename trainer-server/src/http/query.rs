//! Paths and queries, refused with a problem where they cannot be read, and values that several routes read.

use axum::extract::{FromRequestParts, rejection};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Problem;

/// What stands behind the `?`.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::try_from_uri(&parts.uri);
        match read {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::invalid_query("query", rejection.body_text())),
        }
    }
}

/// The variable parts of the path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        match read {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            // What is no text names nothing.
            Err(rejection @ rejection::PathRejection::FailedToDeserializePathParams(_)) => {
                Err(Problem::not_found(rejection.body_text()))
            }
            Err(rejection) => {
                tracing::error!(%rejection, "a path has no such part");
                Err(Problem::internal())
            }
        }
    }
}

/// A number of things, 1 to `max`, that the parameter `name` asks for.
pub(super) fn count(name: &str, text: &str, max: usize) -> Result<usize, Problem> {
    match text.parse() {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => {
            let detail = format!("expected 1 to {max}, found {text}");
            Err(Problem::invalid_query(name, detail))
        }
    }
}
