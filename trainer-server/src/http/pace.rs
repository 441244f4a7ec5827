//! Bodies on their way in: how slow one may be, and how much memory all of them may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::config::LimitsConfig;

/// How long a body may be slower than `limits.body_bytes_per_sec_min`.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyCut {
    #[error("the body came too slowly")]
    TooSlow,
    #[error("too much is being sent at once, send again later")]
    NoRoom,
    #[error(transparent)]
    Broken(axum::Error),
}

/// Bytes of all bodies that have begun and not ended.
#[derive(Clone, Default)]
pub(super) struct Bodies(Arc<AtomicU64>);

/// What one body takes; gives it back when dropped.
struct Held {
    bodies: Bodies,
    num_bytes: u64,
}

impl Held {
    /// Whether there is room for more.
    fn add(&mut self, num_bytes: u64, bytes_max: u64) -> bool {
        self.num_bytes += num_bytes;
        let before = self.bodies.0.fetch_add(num_bytes, Ordering::Relaxed);
        before + num_bytes <= bytes_max
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.num_bytes, Ordering::Relaxed);
    }
}

/// The body, cut off where it is slower than it may be, or where all bodies take more than they may.
pub(super) fn paced(body: Body, limits: &LimitsConfig, bodies: &Bodies) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let started = Instant::now();
    let held = Held {
        bodies: bodies.clone(),
        num_bytes: 0,
    };
    let bytes_max = limits.bodies_bytes_max;
    let pace = (limits.body_timeout_secs, limits.body_bytes_per_sec_min);
    let read = stream::unfold(
        Some((body.into_data_stream(), held)),
        move |state| async move {
            let (mut data, mut held) = state?;
            match timeout_at(started + time_for(held.num_bytes, pace), data.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(bytes))) if held.add(bytes.len() as u64, bytes_max) => {
                    Some((Ok(bytes), Some((data, held))))
                }
                Ok(Some(Ok(_))) => Some((Err(BodyCut::NoRoom), None)),
                Ok(Some(Err(error))) => Some((Err(BodyCut::Broken(error)), None)),
                Err(_) => Some((Err(BodyCut::TooSlow), None)), // the error says no more
            }
        },
    );
    Body::from_stream(read)
}

/// How long after its start a body may be at so many bytes; of a limit in seconds, and one in bytes per second.
fn time_for(num_bytes: u64, (timeout_secs, bytes_per_sec_min): (u64, u64)) -> Duration {
    let end = Duration::from_secs(timeout_secs);
    if bytes_per_sec_min == 0 {
        return end;
    }
    let due = num_bytes as f64 / bytes_per_sec_min as f64; // a body is far below 2^53 bytes
    end.min(BODY_GRACE + Duration::from_secs_f64(due))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_time_of_its_bytes_and_never_more_than_all() {
        let secs = |num_bytes, limits| time_for(num_bytes, limits).as_secs();
        assert_eq!(secs(0, (30, 500)), 5);
        assert_eq!(secs(5000, (30, 500)), 15);
        assert_eq!(secs(1 << 20, (30, 500)), 30);
        assert_eq!(secs(0, (2, 500)), 2);
        assert_eq!(secs(0, (30, 0)), 30);
    }

    #[test]
    fn what_a_body_held_is_free_once_it_has_ended() {
        let bodies = Bodies::default();
        let mut held = [(); 2].map(|()| Held {
            bodies: bodies.clone(),
            num_bytes: 0,
        });
        assert!(held[0].add(60, 100) && !held[1].add(60, 100));
        drop(held);
        assert_eq!(bodies.0.load(Ordering::Relaxed), 0);
    }
}
