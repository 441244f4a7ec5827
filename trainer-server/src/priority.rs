//! What learns stands back: where cores are scarce, taking events in and answering pages come first.
//!
//! Priorities are per thread on Linux, and threads that it starts inherit its own; elsewhere they are of the
//! whole process, which is left alone.

/// Lowers the priority of the calling thread by so much, as `nice` counts.
#[cfg(target_os = "linux")]
pub(crate) fn stand_back(niceness: u8) {
    if let Err(error) = rustix::process::nice(i32::from(niceness)) {
        tracing::warn!(%error, niceness, "a thread that learns keeps its priority");
    }
}

/// Nothing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stand_back(_niceness: u8) {}
