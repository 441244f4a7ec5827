//! `freshet inspect` and `freshet diff`: what an update did, from a running server or from files alone.
//!
//! A number is a version of the server at `--admin`; anything else is the path of a file, and no server is asked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use shared_model::codec::BLOB_BYTES_MAX;
use shared_model::codec::delta::{apply_delta, read_delta_header};
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::codec::state::CodeState;
use shared_model::ids::Version;
use shared_model::manifest::{MANIFEST_BYTES_MAX, Manifest};

use super::rollout::{AdminArgs, get};
use crate::ledger::difference::difference;

/// Flags of `freshet inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// A version of the server, or the file of a delta, snapshot or manifest
    #[arg(value_name = "VERSION|FILE")]
    pub what: String,
    /// Snapshot that a delta file starts from: says what the delta moves
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of `freshet diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// A version that the server keeps, or the file of a snapshot
    #[arg(value_name = "BASE")]
    pub base: String,
    /// Another one, of the same sort
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Prints what a version moved and who let it out, or what a file holds.
///
/// # Errors
/// The server does not answer, its ledger has no such version, or the file is none of ours.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let found = match args.what.parse::<u64>() {
        Ok(version) => {
            let path = format!("/v1/versions/{version}");
            super::replay::block_on(get(&args.admin, &path))?
        }
        Err(_) => file(Path::new(&args.what), args.base.as_deref())?, // not a number: a path
    };
    print(&found, args.admin.json);
    Ok(())
}

/// Prints what is different between two versions.
///
/// # Errors
/// As [`inspect`].
pub fn diff(args: &DiffArgs) -> anyhow::Result<()> {
    let numbers = (args.base.parse::<u64>(), args.target.parse::<u64>());
    let found = match numbers {
        (Ok(base), Ok(target)) => {
            let path = format!("/v1/versions/{target}/changes?base={base}");
            super::replay::block_on(get(&args.admin, &path))?
        }
        (Err(_), Err(_)) => {
            let (base_version, base) = read_snapshot(Path::new(&args.base))?;
            let (target_version, target) = read_snapshot(Path::new(&args.target))?;
            let found = difference((base_version, &base), (target_version, &target));
            serde_json::to_value(found)?
        }
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => {
            bail!("compare two versions of a server or two snapshot files, not one with the other")
        }
    };
    print(&found, args.admin.json);
    Ok(())
}

/// What a file holds.
fn file(path: &Path, base: Option<&Path>) -> anyhow::Result<Value> {
    let bytes = read_file(path)?;
    let at = || format!("cannot read {}", path.display());
    match bytes.first_chunk::<4>() {
        Some(b"FRDL") => delta(&bytes, base).with_context(at),
        Some(b"FRSN") => snapshot(&bytes).with_context(at),
        _ if bytes.first() == Some(&b'{') => manifest(&bytes).with_context(at),
        _ => bail!("{} is no delta, snapshot or manifest", path.display()),
    }
}

fn delta(bytes: &[u8], base: Option<&Path>) -> anyhow::Result<Value> {
    let header = read_delta_header(bytes)?;
    let mut found = json!({
        "file": "delta",
        "bytes": bytes.len(),
        "base_version": header.base_version,
        "target_version": header.target_version,
        "base_state": header.base,
        "target_state": header.target,
    });
    let Some(base) = base else {
        return Ok(found);
    };
    let (base_version, base) = read_snapshot(base)?;
    let target = apply_delta(&base, bytes)?;
    let changes = difference((base_version, &base), (header.target_version, &target));
    found["changes"] = serde_json::to_value(changes)?;
    Ok(found)
}

fn snapshot(bytes: &[u8]) -> anyhow::Result<Value> {
    let (version, state) = decode_snapshot(bytes)?;
    let shapes = state.shapes();
    let tensors: Vec<Value> = shapes
        .iter()
        .map(|shape| {
            json!({
                "name": shape.name, "group": shape.group, "rows": shape.num_rows, "cols": shape.num_cols,
                "code_bits": shape.code_bits,
            })
        })
        .collect();
    Ok(json!({
        "file": "snapshot",
        "bytes": bytes.len(),
        "version": version,
        "state": state.hash(),
        "encoder_generation": state.encoder_generation,
        "num_items": state.items.len(),
        "num_available": state.items.iter().filter(|item| item.available).count(),
        "learned_code_bytes": state.learned_code_bytes(),
        "spec": state.spec,
        "tensors": tensors,
    }))
}

/// A signed manifest. No key is at hand here, so the signature is not looked at, and the answer says so.
fn manifest(bytes: &[u8]) -> anyhow::Result<Value> {
    ensure!(
        bytes.len() <= MANIFEST_BYTES_MAX,
        "longer than a manifest may be"
    );
    let envelope: Value = serde_json::from_slice(bytes)?;
    let payload = envelope["payload"]
        .as_str()
        .context("no signed manifest: it has no payload")?;
    let manifest: Manifest = serde_json::from_str(payload)?;
    manifest.check()?;
    Ok(json!({
        "file": "manifest",
        "bytes": bytes.len(),
        "key_id": envelope["key_id"],
        "signature": "not checked",
        "manifest": manifest,
    }))
}

fn read_snapshot(path: &Path) -> anyhow::Result<(Version, CodeState)> {
    let bytes = read_file(path)?;
    decode_snapshot(&bytes).with_context(|| format!("no snapshot: {}", path.display()))
}

/// A file of at most the size of a blob.
pub(super) fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let at = || format!("cannot read {}", path.display());
    let num_bytes = fs::metadata(path).with_context(at)?.len();
    ensure!(
        num_bytes <= BLOB_BYTES_MAX as u64, // widening
        "{} has {num_bytes} bytes, at most {BLOB_BYTES_MAX} are read",
        path.display()
    );
    fs::read(path).with_context(at)
}

fn print(found: &Value, as_json: bool) {
    if as_json {
        println!("{found}");
    } else {
        print!("{}", table(found, 0));
    }
}

/// Fields on a line each, nested ones indented; a list of objects one a line.
fn table(found: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut lines = String::new();
    let Value::Object(fields) = found else {
        return format!("{indent}{}\n", scalar(found));
    };
    for (name, value) in fields {
        match value {
            Value::Object(_) => {
                lines.push_str(&format!("{indent}{name}\n{}", table(value, depth + 1)));
            }
            Value::Array(rows) => {
                lines.push_str(&format!("{indent}{name}\n"));
                for row in rows {
                    lines.push_str(&format!("{indent}  {}\n", row_text(row)));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                lines.push_str(&format!("{indent}{name:20} {}\n", scalar(value)));
            }
        }
    }
    lines
}

fn row_text(row: &Value) -> String {
    let Value::Object(fields) = row else {
        return scalar(row);
    };
    let cells = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", scalar(value)));
    cells.collect::<Vec<_>>().join("  ")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared_model::codec::delta::encode_delta;
    use shared_model::codec::snapshot::encode_snapshot;
    use shared_model::codec::state::ItemEntry;
    use shared_model::ids::ItemId;
    use shared_model::spec::ModelSpec;

    fn state(code: i16) -> CodeState {
        let mut state = CodeState::empty(ModelSpec::default());
        state.append_items([ItemEntry {
            item_id: ItemId::new("tea").expect("short"),
            available: true,
        }]);
        let rows = state.tensor_mut("item.id_rows").expect("in the spec");
        rows.exponents[0] = -7;
        rows.row_mut(0)[0] = code;
        state
    }

    #[test]
    fn a_delta_file_says_its_ends_and_with_its_base_what_it_moves() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (base, target) = (dir.path().join("base"), dir.path().join("delta"));
        let snapshot = encode_snapshot(&state(0), Version(3)).expect("sound");
        let delta = encode_delta(&state(0), Version(3), &state(64), Version(4)).expect("sound");
        fs::write(&base, snapshot).expect("written");
        fs::write(&target, &delta).expect("written");

        let alone = file(&target, None).expect("a delta");
        let with_base = file(&target, Some(&base)).expect("a delta");

        assert_eq!(
            (&alone["base_version"], &alone["target_version"]),
            (&json!(3), &json!(4))
        );
        assert_eq!(alone.get("changes"), None);
        let moved = &with_base["changes"]["movement"]["moved_most"][0];
        assert_eq!(
            (&moved["item_id"], &moved["distance"]),
            (&json!("tea"), &json!(0.5))
        );
        assert_eq!(with_base["changes"]["delta_bytes"], json!(delta.len()));
        assert!(table(&with_base, 0).contains("item_id=tea"));
    }

    #[test]
    fn a_snapshot_file_says_what_it_holds_and_a_damaged_or_foreign_one_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("snapshot");
        let mut bytes = encode_snapshot(&state(5), Version(9)).expect("sound");
        fs::write(&path, &bytes).expect("written");
        let found = file(&path, None).expect("a snapshot");
        assert_eq!(
            (&found["version"], &found["num_items"]),
            (&json!(9), &json!(1))
        );

        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("written");
        assert!(file(&path, None).is_err());
        fs::write(&path, b"PK\x03\x04").expect("written");
        assert!(file(&path, None).is_err());
        assert!(file(&dir.path().join("none"), None).is_err());
    }
}
