//! Badges of sizes and speeds for the READMEs: small SVGs in `docs/badges`, from what `cargo xtask bench` measured.
//!
//! Numbers come from reports alone, and sizes only from those of the published modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// A badge: its file, what it says of what, and where the number stands in the `numbers` of a report.
struct Badge {
    file: &'static str,
    label: &'static str,
    benchmark: &'static str,
    pointer: &'static str,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    BrotliBytes,
    /// Milliseconds, and of which share of the calls.
    Millis(&'static str),
}

const BADGES: [Badge; 5] = [
    Badge {
        file: "cpu-size",
        label: "CPU runtime",
        benchmark: "sizes",
        pointer: "/freshet_cpu/total_brotli_with_package_js",
        unit: Unit::BrotliBytes,
    },
    Badge {
        file: "webgpu-size",
        label: "WebGPU runtime",
        benchmark: "sizes",
        pointer: "/freshet_webgpu/total_brotli_with_package_js",
        unit: Unit::BrotliBytes,
    },
    Badge {
        file: "text-size",
        label: "text search",
        benchmark: "sizes",
        pointer: "/freshet_text/total_brotli_with_package_js",
        unit: Unit::BrotliBytes,
    },
    Badge {
        file: "rank-10k",
        label: "rank 10,000 items",
        benchmark: "edge",
        pointer: "/rank_10k_ms/p95",
        unit: Unit::Millis("p95"),
    },
    Badge {
        file: "encode-64",
        label: "encode 64 tokens",
        benchmark: "edge",
        pointer: "/encode64_ms/p50",
        unit: Unit::Millis("median"),
    },
];

/// Pixels: of a letter on average, around each text, and of the whole in height.
const LETTER_WIDTH: usize = 7;
const PADDING: usize = 7;
const HEIGHT: usize = 20;

/// Writes the badges of each report, as `cargo xtask bench NAME --json FILE` writes it.
///
/// # Errors
/// A report cannot be read, is of nothing that has a badge, or is not of published modules.
pub(crate) fn write(workspace: &Workspace, reports: &[PathBuf]) -> anyhow::Result<()> {
    let dir = workspace.path("docs/badges");
    fs::create_dir_all(&dir)?;
    for path in reports {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let report: Value = serde_json::from_str(&text)
            .with_context(|| format!("no report: {}", path.display()))?;
        let made = of_report(&report).with_context(|| format!("in {}", path.display()))?;
        for (file, svg) in made {
            write_one(&dir, file, &svg)?;
        }
    }
    Ok(())
}

fn write_one(dir: &Path, file: &str, svg: &str) -> anyhow::Result<()> {
    let path = dir.join(format!("{file}.svg"));
    fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Every badge whose number is in the report, by the name of its file.
fn of_report(report: &Value) -> anyhow::Result<Vec<(&'static str, String)>> {
    let (name, numbers) = (&report["benchmark"], &report["numbers"]);
    let badges: Vec<&Badge> = BADGES
        .iter()
        .filter(|badge| name == badge.benchmark)
        .collect();
    ensure!(!badges.is_empty(), "no badge shows the benchmark {name}");
    if name == "sizes" && numbers["profile"] != "npm" {
        bail!(
            "these are the modules of tests, not those that are published; `cargo xtask package` builds them"
        );
    }
    let badge = |badge: &Badge| {
        let number = numbers.pointer(badge.pointer).and_then(Value::as_f64);
        let number = number.with_context(|| format!("there is no {}", badge.pointer))?;
        Ok((badge.file, svg(badge.label, &shown(number, badge.unit))))
    };
    badges.into_iter().map(badge).collect()
}

/// `348 KB brotli`, `1.38 MB brotli`, `0.44 ms p95`.
fn shown(number: f64, unit: Unit) -> String {
    match unit {
        Unit::BrotliBytes if number < 1e6 => format!("{:.0} KB brotli", number / 1e3),
        Unit::BrotliBytes => format!("{:.2} MB brotli", number / 1e6),
        Unit::Millis(share) if number < 10.0 => format!("{number:.2} ms {share}"),
        Unit::Millis(share) => format!("{number:.1} ms {share}"),
    }
}

/// Two texts side by side, the second one coloured. They hold no character that XML would read as markup.
fn svg(label: &str, value: &str) -> String {
    let width = |text: &str| text.chars().count() * LETTER_WIDTH;
    let (label_width, value_width) = (width(label), width(value));
    let middle = label_width + 2 * PADDING;
    let total = middle + value_width + 2 * PADDING;
    let text = |x: usize, length: usize, text: &str| {
        format!(r#"<text x="{x}" y="14" textLength="{length}">{text}</text>"#)
    };
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{HEIGHT}" role="img" aria-label="{label}: {value}">
<title>{label}: {value}</title>
<rect width="{total}" height="{HEIGHT}" rx="4" fill="#4a5452"/>
<path d="M{middle} 0h{rest}a4 4 0 0 1 4 4v12a4 4 0 0 1-4 4H{middle}z" fill="#1f6f68"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{}{}</g>
</svg>
"##,
        text(PADDING, label_width, label),
        text(middle + PADDING, value_width, value),
        rest = total - middle - 4,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_of_sizes_becomes_three_badges_that_say_them() -> anyhow::Result<()> {
        let module = |bytes: u32| json!({ "total_brotli_with_package_js": bytes });
        let numbers = json!({ "profile": "npm", "freshet_cpu": module(348_304),
            "freshet_webgpu": module(1_383_987), "freshet_text": module(64_112) });
        let badges = of_report(&json!({ "benchmark": "sizes", "numbers": numbers }))?;
        let files: Vec<&str> = badges.iter().map(|(file, _)| *file).collect();
        assert_eq!(files, ["cpu-size", "webgpu-size", "text-size"]);
        let (_, webgpu) = &badges[1];
        assert!(webgpu.contains("<title>WebGPU runtime: 1.38 MB brotli</title>"));
        assert!(webgpu.starts_with("<svg ") && webgpu.ends_with("</svg>\n"));
        Ok(())
    }

    #[test]
    fn the_two_texts_of_a_badge_lie_side_by_side() {
        let badge = svg("ab", "cde");
        assert!(badge.contains(r#"width="63" height="20""#), "{badge}");
        assert!(badge.contains(r#"<text x="7" y="14" textLength="14">ab</text>"#));
        assert!(badge.contains(r#"<text x="35" y="14" textLength="21">cde</text>"#));
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(shown(0.44, Unit::Millis("p95")), "0.44 ms p95");
        assert_eq!(shown(18.04, Unit::Millis("median")), "18.0 ms median");
        assert_eq!(shown(64_112.0, Unit::BrotliBytes), "64 KB brotli");
    }

    #[test]
    fn refuses_what_is_not_published_not_measured_or_without_a_badge() {
        let quick = json!({ "benchmark": "sizes", "numbers": { "profile": "wasm" } });
        let empty = json!({ "benchmark": "edge", "numbers": {} });
        let other = json!({ "benchmark": "train", "numbers": {} });
        for (report, reason) in [
            (quick, "published"),
            (empty, "rank_10k_ms"),
            (other, "train"),
        ] {
            let error = of_report(&report).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
