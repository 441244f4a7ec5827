//! CPU seconds, user and system, of a process and all its threads.
//!
//! Read from `/proc/PID/stat` (proc(5), fields 14 and 15), so on Linux only; elsewhere there is a reason instead.

/// Ticks per second of the kernel's accounting: `USER_HZ` is 100 on every architecture that Rust's Linux targets run on.
const TICKS_PER_SEC: f64 = 100.0;

/// CPU seconds that a process has used so far.
///
/// # Errors
/// In words, why they are not known.
pub fn process_secs(process_id: u32) -> Result<f64, String> {
    let path = format!("/proc/{process_id}/stat");
    let stat = std::fs::read_to_string(&path)
        .map_err(|error| format!("CPU seconds are not known: {error}, {path}"))?;
    parse(&stat)
        .ok_or_else(|| format!("CPU seconds are not known: {stat:?} is not understood, {path}"))
}

/// CPU seconds that this process has used so far.
///
/// # Errors
/// As [`process_secs`].
pub fn own_secs() -> Result<f64, String> {
    process_secs(std::process::id())
}

/// The name of the program, in brackets, may hold anything; fields are counted behind it.
fn parse(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11); // the next are fields 14 and 15
    let user: u64 = fields.next()?.parse().ok()?; // anything else is not understood
    let system: u64 = fields.next()?.parse().ok()?; // likewise
    Some((user + system) as f64 / TICKS_PER_SEC) // ticks of years fit f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_ticks_are_added_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 9 8 7 6 250 50 3 2 20 0 1 0 77 8 9";
        assert_eq!(parse(stat), Some(3.0));
        assert_eq!(parse("42 (a) S 1 2"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_of_this_process_is_counted() {
        let before = own_secs().expect("this process is there");
        let started_at = std::time::Instant::now();
        while own_secs().expect("this process is there") < before + 0.02 {
            assert!(
                started_at.elapsed().as_secs() < 60,
                "busy, and nothing counted"
            );
        }
        assert!(process_secs(u32::MAX).is_err());
    }
}
