//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Looks again and again until `look` answers something.
///
/// # Errors
/// The first error of `look`, or that `what` did not come true within `patience`.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: still not so after {patience:?}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
