//! How long a page takes to apply and verify a delta: the built CPU module in Chromium, on a code state of 10 MB.
//!
//! Every case is timed on engines of its own that hold the base. What is timed is `on_blob`, which decodes the delta,
//! applies it and compares the hash of the result with the manifest, and `settle`, which rebuilds the model and runs
//! the self-test. The case without a change costs the copy and the hash alone; what another takes beyond it is decoding.
//! Writes one line of JSON per case. Run by `cargo xtask bench page`.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use harness::browser::Browser;
use harness::signed::{manifest, plan, signed_text};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shared_model::codec::delta::encode_delta;
use shared_model::codec::quantize::code_max;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::{CodeState, ItemEntry};
use shared_model::ids::{ItemId, Version};
use shared_model::manifest::{Manifest, public_key_text};
use shared_model::spec::ModelSpec;

/// With texts of 384 and ids of 64 codes: 10 MB.
const NUM_ITEMS: usize = 22_000;
const SEED: u64 = 20_261_126;
/// Engines per case; the median counts.
const NUM_RUNS: usize = 5;
/// Rows of a fast version after some hundred events.
const FAST_ROWS: usize = 120;
const NOW_MILLIS: i64 = 1_790_000_000_000;

const SCRIPT: &str = r"
const [input, done] = arguments;
const bytesOf = async (text) =>
  new Uint8Array(await (await fetch('data:application/octet-stream;base64,' + text)).arrayBuffer());
const run = async () => {
  const { default: createModule } = await import('/dist/freshet_cpu.js');
  const { init, Engine } = createModule();
  await init({ module_or_path: fetch('/dist/freshet_cpu_bg.wasm') });
  const encoder = new TextEncoder();
  const snapshot = await bytesOf(input.snapshot);
  const delta = await bytesOf(input.delta);
  const measured = [];
  for (let run = 0; run < input.num_runs; run += 1) {
    const engine = await Engine.open('main', input.trust, 'cpu');
    const times = {};
    const timed = async (name, work) => {
      const start = performance.now();
      await work();
      times[name] = performance.now() - start;
    };
    await timed('restore_millis', () => engine.restore(encoder.encode(input.manifest), snapshot));
    await timed('first_settle_millis', () => engine.settle());
    const asked = JSON.parse(engine.next_request());
    if (asked.kind !== 'plan') throw new Error('asked for ' + JSON.stringify(asked));
    engine.on_plan(encoder.encode(input.plan));
    const request = JSON.parse(engine.next_request());
    if (request.kind !== 'blob') throw new Error('asked for ' + JSON.stringify(request));
    await timed('apply_millis', () => engine.on_blob(request.id, delta));
    await timed('settle_millis', async () => {
      if (!(await engine.settle())) throw new Error('nothing to settle');
    });
    times.state_hash = JSON.parse(engine.status()).state_hash;
    engine.free();
    measured.push(times);
  }
  return measured;
};
run().then((value) => done({ value }), (error) => done({ error: String(error) }));
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Some(browser) = Browser::start().await? else {
        bail!("nothing is measured without Chromium and the built modules");
    };
    let page = browser.open_blank().await?;
    let key = SigningKey::from_bytes(&[9; 32]);
    let base = base_state();
    let snapshot = encode_snapshot(&base, Version(1))?;
    let first = manifest(&base, None, NOW_MILLIS).await?;
    let trust = json!([public_key_text(&key.verifying_key())]).to_string();
    for (name, target) in cases(&base) {
        let delta = encode_delta(&base, Version(1), &target, Version(2))?;
        let second = manifest(&target, Some(&delta), NOW_MILLIS).await?;
        let input = json!({
            "trust": trust,
            "manifest": signed_text(&first, &key)?,
            "snapshot": STANDARD.encode(&snapshot),
            "plan": plan(&second, &delta, &key)?,
            "delta": STANDARD.encode(&delta),
            "num_runs": NUM_RUNS,
        });
        let runs = page.run(SCRIPT, vec![input]).await?;
        let changed = changed_codes(&base, &target);
        let mut case = summary(&runs, &second)?;
        case["name"] = json!(name);
        case["changed_codes"] = json!(changed);
        case["code_bytes"] = json!(code_bytes(&target));
        case["delta_bytes"] = json!(delta.len());
        println!("{case}");
    }
    browser.close().await
}

/// Medians of the runs, after each was found to end in the target.
fn summary(runs: &Value, target: &Manifest) -> anyhow::Result<Value> {
    let runs = runs.as_array().context("the script gave no list")?;
    for run in runs {
        anyhow::ensure!(
            run["state_hash"] == json!(target.state.to_hex()),
            "a page came to another state: {run}"
        );
    }
    let mut medians = json!({});
    for name in [
        "restore_millis",
        "first_settle_millis",
        "apply_millis",
        "settle_millis",
    ] {
        let mut times: Vec<f64> = runs.iter().filter_map(|run| run[name].as_f64()).collect();
        times.sort_by(f64::total_cmp);
        medians[name] = json!(times.get(times.len() / 2));
    }
    Ok(medians)
}

/// Rows as trained ones are: most of the range is used, small codes are frequent.
fn base_state() -> CodeState {
    let rng = &mut StdRng::seed_from_u64(SEED);
    let mut state = CodeState::empty(ModelSpec::default());
    state.append_items((0..NUM_ITEMS).map(|item_idx| ItemEntry {
        item_id: ItemId::new(format!("item-{item_idx}")).expect("short"),
        available: true,
    }));
    let shapes = state.shapes();
    for (shape, tensor) in shapes.iter().zip(&mut state.tensors) {
        if shape.code_bits == 8 && shape.num_cols > 0 {
            tensor.exponents.fill(-9);
            for code in &mut tensor.codes {
                let sum: i16 = (0..4).map(|_| rng.random_range(-25..=25_i16)).sum(); // near a normal deviate
                *code = sum;
            }
        }
    }
    state
}

fn cases(base: &CodeState) -> Vec<(&'static str, CodeState)> {
    let mut all = vec![("nothing changed", base.clone())];
    let mut fast = base.clone();
    let rng = &mut StdRng::seed_from_u64(SEED + 1);
    let id_rows = fast.tensor_mut("item.id_rows").expect("in every spec");
    for _ in 0..FAST_ROWS {
        let row_idx = rng.random_range(0..NUM_ITEMS);
        for code in id_rows.row_mut(row_idx) {
            *code = (*code + rng.random_range(-3..=3)).clamp(-127, 127);
        }
    }
    all.push(("a fast version of 120 rows", fast));
    for (name, share) in [
        ("0.1 % by chance", 0.001),
        ("1.25 % by chance", 0.0125),
        ("5 % by chance", 0.05),
        ("12 % by chance", 0.12),
    ] {
        let mut target = base.clone();
        for tensor in &mut target.tensors {
            let max = code_max(tensor.code_bits);
            for code in &mut tensor.codes {
                if tensor.code_bits == 8 && rng.random_bool(share) {
                    let step = if rng.random() { 1 } else { -1 };
                    *code = (*code + step).clamp(-max, max);
                }
            }
        }
        all.push((name, target));
    }
    all
}

/// Bytes of all codes as the hash covers them.
fn code_bytes(state: &CodeState) -> usize {
    let tensors = state.tensors.iter();
    tensors
        .map(|tensor| tensor.codes.len() * usize::from(tensor.code_bits.div_ceil(8)))
        .sum()
}

fn changed_codes(base: &CodeState, target: &CodeState) -> usize {
    let pairs = base.tensors.iter().zip(&target.tensors);
    pairs
        .map(|(base, target)| {
            let codes = base.codes.iter().zip(&target.codes);
            codes.filter(|(base, target)| base != target).count()
        })
        .sum()
}
