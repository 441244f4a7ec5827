//! Values of query parameters that several routes read.

use super::Problem;

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
