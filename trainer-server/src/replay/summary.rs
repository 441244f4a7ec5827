//! The figures that people look at first, as a table on standard output.

use super::Measured;
use super::report::{
    bytes_per_1000_events, delta_bytes, freshness, hash_mismatches, versions_published,
};
use crate::evaluate::systems::Systems;
use crate::evaluate::table::table;

/// Prints it.
pub(crate) fn print(measured: &Measured, systems: &Systems) {
    let walk = &measured.walk;
    println!();
    println!(
        "{} · {} events streamed, {} left out",
        measured.dataset.name, walk.num_streamed, walk.num_left_out
    );
    print!("{}", table(systems));
    println!();
    let fast = delta_bytes(measured, |applied| applied.delta_bytes_downloaded);
    println!(
        "{:<34} {}",
        "versions published",
        versions_published(measured)
    );
    println!(
        "{:<34} {} / {}",
        "fast delta, bytes, median / p95", fast["median"], fast["p95"]
    );
    println!(
        "{:<34} {}",
        "learned codes, bytes", measured.learned_code_bytes
    );
    println!(
        "{:<34} {}",
        "bytes per 1,000 events",
        bytes_per_1000_events(measured)
    );
    if measured.steady.is_ok() {
        let freshness = freshness(measured);
        let (p50, p95) = (freshness["p50"].as_f64(), freshness["p95"].as_f64());
        println!(
            "{:<34} {} / {}",
            "freshness, secs, p50 / p95",
            decimal(p50),
            decimal(p95)
        );
        println!(
            "{:<34} {} of {}",
            "effects lost", freshness["num_lost"], freshness["num_measured"]
        );
    }
    println!("{:<34} {}", "hash mismatches", hash_mismatches(measured));
    if let (Err(why), true) = (&measured.audit, measured.options.num_kills > 0) {
        println!("{:<34} {why}", "audit failed");
    }
    if let Ok(audit) = &measured.audit {
        println!(
            "{:<34} {} of {} missing, {} stored twice",
            format!("acked events after {} kills", measured.restart_secs.len()),
            audit.num_missing,
            audit.num_acked,
            audit.num_stored_twice
        );
        println!(
            "{:<34} {} learned twice, {} left out",
            format!("records over {} versions", audit.num_versions),
            audit.num_learned_twice,
            audit.num_not_learned
        );
    }
    println!(
        "{:<34} {:.0} s (warm fit {:.0} s)",
        "time", measured.total_secs, measured.warm_secs
    );
}

fn decimal(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}
