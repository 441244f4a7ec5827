//! Random states and their random successors, and a publisher of versions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared_model::codec::delta::encode_delta;
use shared_model::codec::quantize::{EXPONENT_MAX, EXPONENT_MIN, code_max, rescale_code};
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::{
    COUNTS_TENSOR, CodeState, ItemEntry, NEIGHBOUR_WEIGHTS_TENSOR, NEIGHBOURS_TENSOR, NEVER_CODE,
};
use shared_model::ids::{BlobId, ItemId, LogOffset, Version};
use shared_model::manifest::{
    Announcement, BlobRef, Channel, DeltaRef, FORMAT_VERSION, ItemPoints, Manifest, ModerationNote,
    ModerationRules, PinnedItem, PlanStep, PlanStepKind, SelfTest, UpdatePlan, VersionKind, sign,
};
use shared_model::spec::{ModelSpec, TensorGroup};

pub(crate) const MODEL: &str = "shop";

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn tiny_spec() -> ModelSpec {
    ModelSpec {
        embedding_dim: 4,
        text_dim: 3,
        feature_dim: 0,
        history_len: 2,
        num_layers: 1,
        num_heads: 1,
        ff_dim: 4,
        half_lives_secs: vec![60, 3600],
        num_neighbours: 0,
        adapter_dim: 0,
        has_taste_weight: false,
        ..ModelSpec::default()
    }
}

pub(crate) fn random_spec(rng: &mut StdRng) -> ModelSpec {
    ModelSpec {
        embedding_dim: rng.random_range(4..14),
        text_dim: rng.random_range(0..12),
        feature_dim: rng.random_range(0..4),
        history_len: rng.random_range(1..4),
        num_layers: rng.random_range(1..3),
        num_heads: 1,
        ff_dim: rng.random_range(4..9),
        half_lives_secs: (1..=rng.random_range(1..=8))
            .map(|step| 60 * step)
            .collect(),
        num_neighbours: [0, 3][rng.random_range(0..2)],
        adapter_dim: [0, 2][rng.random_range(0..2)],
        has_taste_weight: rng.random(),
        id_code_bits: [4, 8][rng.random_range(0..2)],
        text_code_bits: [4, 8][rng.random_range(0..2)],
        matrix_code_bits: [4, 8][rng.random_range(0..2)],
    }
}

/// A state of `num_items` items of which some rows are blank, some small, some extreme.
pub(crate) fn random_state(spec: ModelSpec, num_items: usize, rng: &mut StdRng) -> CodeState {
    let mut state = CodeState::empty(spec);
    state.encoder_generation = rng.random_range(0..3);
    state.landmark_millis = rng.random_range(-5..2_000_000_000_000);
    append_random_items(&mut state, num_items, rng);
    for tensor_idx in 0..state.tensors.len() {
        for row_idx in 0..state.tensors[tensor_idx].num_rows {
            randomize_row(&mut state, tensor_idx, row_idx, rng);
        }
    }
    state
}

/// Appends items with unlike ids.
pub(crate) fn append_random_items(state: &mut CodeState, num_items: usize, rng: &mut StdRng) {
    for _ in 0..num_items {
        let prefix = ["", "item-", "größe/", "Ж"][rng.random_range(0..4)];
        let row_idx = state.items.len();
        let item_id = ItemId::new(format!("{prefix}{}-{row_idx}", rng.random::<u32>()))
            .expect("short enough");
        state.append_items([ItemEntry {
            item_id,
            available: rng.random_bool(0.8),
        }]);
    }
}

/// Replaces one row by noise, mostly mild.
pub(crate) fn randomize_row(
    state: &mut CodeState,
    tensor_idx: usize,
    row_idx: usize,
    rng: &mut StdRng,
) {
    let name = state.shapes()[tensor_idx].name.clone();
    let is_counts = name == COUNTS_TENSOR;
    let tensor = &mut state.tensors[tensor_idx];
    if tensor.num_cols == 0 || rng.random_bool(0.2) {
        return;
    }
    if name == NEIGHBOURS_TENSOR {
        let num_items = tensor.num_rows as i16; // a handful
        for code in tensor.row_mut(row_idx) {
            *code = rng.random_range(0..=num_items);
        }
        return;
    }
    if !is_counts && rng.random_bool(0.7) {
        tensor.exponents[row_idx] = rng.random_range(EXPONENT_MIN..=EXPONENT_MAX);
    }
    let max = if rng.random_bool(0.3) {
        code_max(tensor.code_bits)
    } else {
        3
    };
    for code in tensor.row_mut(row_idx) {
        *code = rng.random_range(-max..=max);
        if name == NEIGHBOUR_WEIGHTS_TENSOR {
            *code = code.abs();
        }
        if is_counts && rng.random_bool(0.3) {
            *code = NEVER_CODE;
        }
    }
}

/// Moves a few codes of a few rows by small steps, sometimes with a new exponent.
pub(crate) fn nudge(state: &mut CodeState, num_rows: usize, rng: &mut StdRng) {
    let shapes = state.shapes();
    let is_counts: Vec<bool> = shapes
        .iter()
        .map(|shape| shape.name == COUNTS_TENSOR)
        .collect();
    for _ in 0..num_rows {
        let tensor_idx = rng.random_range(0..state.tensors.len());
        if shapes[tensor_idx].group == TensorGroup::Neighbours && !state.items.is_empty() {
            let row_idx = rng.random_range(0..state.items.len());
            randomize_row(state, tensor_idx, row_idx, rng);
            continue;
        }
        let tensor = &mut state.tensors[tensor_idx];
        if tensor.codes.is_empty() {
            continue;
        }
        let row_idx = rng.random_range(0..tensor.num_rows);
        let (code_bits, max) = (tensor.code_bits, code_max(tensor.code_bits));
        if !is_counts[tensor_idx] && rng.random_bool(0.2) {
            let exponent = tensor.exponents[row_idx];
            let target = (exponent + rng.random_range(-3..=3)).clamp(EXPONENT_MIN, EXPONENT_MAX);
            tensor.exponents[row_idx] = target;
            for code in tensor.row_mut(row_idx) {
                *code = rescale_code(*code, target - exponent, code_bits);
            }
        }
        for code in tensor.row_mut(row_idx) {
            if rng.random_bool(0.3) {
                *code = code
                    .saturating_add(rng.random_range(-2..=2))
                    .clamp(-max, max);
            }
        }
    }
}

/// A successor that uses everything a delta can say.
pub(crate) fn random_successor(base: &CodeState, rng: &mut StdRng) -> CodeState {
    let mut target = base.clone();
    if rng.random_bool(0.2) {
        target.landmark_millis = rng.random();
    }
    for item in &mut target.items {
        item.available ^= rng.random_bool(0.1);
    }
    let num_rows = rng.random_range(0..20);
    nudge(&mut target, num_rows, rng);
    let num_new = if rng.random_bool(0.4) {
        rng.random_range(0..5)
    } else {
        0
    };
    append_random_items(&mut target, num_new, rng);
    for tensor_idx in 0..target.tensors.len() {
        for row_idx in 0..target.tensors[tensor_idx].num_rows {
            let is_new = row_idx >= base.tensors[tensor_idx].num_rows;
            if is_new || rng.random_bool(0.05) {
                randomize_row(&mut target, tensor_idx, row_idx, rng);
            }
        }
    }
    target
}

/// Puts a matching checksum into a changed delta or snapshot, so that the decoder behind it is reached.
pub(crate) fn reseal(bytes: &mut [u8]) {
    if bytes.len() < 9 {
        return;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..5]).update(&bytes[9..]);
    bytes[5..9].copy_from_slice(&hasher.finalize().as_bytes()[..4]);
}

/// Publishes versions of one model, numbered from 1.
pub(crate) struct Publisher {
    pub(crate) key: SigningKey,
    pub(crate) versions: Vec<Published>,
}

pub(crate) struct Published {
    pub(crate) state: CodeState,
    pub(crate) manifest: Manifest,
    pub(crate) signed: Vec<u8>,
    /// From the version before; empty for the first.
    pub(crate) delta: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
}

impl Publisher {
    /// With one random version published.
    pub(crate) fn new(seed: u64) -> Self {
        let mut publisher = Self {
            key: SigningKey::from_bytes(&[7; 32]),
            versions: Vec::new(),
        };
        publisher.publish(random_state(tiny_spec(), 6, &mut rng(seed)));
        publisher
    }

    pub(crate) fn publish(&mut self, state: CodeState) {
        let version = Version(self.versions.len() as u64 + 1);
        let snapshot = encode_snapshot(&state, version).expect("valid state");
        let mut delta = Vec::new();
        if let Some(base) = self.versions.last() {
            delta = encode_delta(&base.state, base.manifest.version, &state, version)
                .expect("a successor");
        }
        let manifest = manifest_of(&state, version, &delta, &snapshot);
        let signed = sign(&manifest, &self.key);
        self.versions.push(Published {
            state,
            manifest,
            signed,
            delta,
            snapshot,
        });
    }

    /// Publishes a random successor of the newest version.
    pub(crate) fn advance(&mut self, rng: &mut StdRng) {
        let target = random_successor(&self.newest().state, rng);
        self.publish(target);
    }

    pub(crate) fn newest(&self) -> &Published {
        self.versions.last().expect("one is published at the start")
    }

    /// SSE data of the newest version.
    pub(crate) fn announcement(&self, with_delta: bool) -> Vec<u8> {
        announcement_of(self.newest(), with_delta)
    }

    /// Deltas from a known base, else the newest snapshot.
    pub(crate) fn plan(&self, base: Option<Version>) -> Vec<u8> {
        let newest = self.newest();
        let step = |kind, bytes: &[u8], target_version| PlanStep {
            kind,
            blob: blob_ref(bytes),
            target_version,
        };
        let steps: Vec<PlanStep> = match base {
            None => vec![step(
                PlanStepKind::Snapshot,
                &newest.snapshot,
                newest.manifest.version,
            )],
            Some(Version(base)) => {
                let chain = self.versions.iter().skip(base as usize); // small numbers
                chain
                    .map(|target| step(PlanStepKind::Delta, &target.delta, target.manifest.version))
                    .collect()
            }
        };
        plan_of(newest, steps)
    }

    /// The blob of this id.
    pub(crate) fn blob(&self, id: BlobId) -> &[u8] {
        let mut blobs = self
            .versions
            .iter()
            .flat_map(|version| [&version.delta, &version.snapshot]);
        blobs
            .find(|bytes| BlobId::of(bytes) == id)
            .expect("a published blob")
    }
}

pub(crate) fn announcement_of(version: &Published, with_delta: bool) -> Vec<u8> {
    let announcement = Announcement {
        version: version.manifest.version,
        kind: version.manifest.kind,
        learned_through: version.manifest.learned_through,
        manifest: text(&version.signed),
        delta: with_delta.then(|| STANDARD.encode(&version.delta)),
    };
    serde_json::to_vec(&announcement).expect("serializes")
}

pub(crate) fn plan_of(target: &Published, steps: Vec<PlanStep>) -> Vec<u8> {
    let plan = UpdatePlan {
        target_version: target.manifest.version,
        manifest: text(&target.signed),
        total_bytes: steps.iter().map(|step| step.blob.bytes).sum(),
        steps,
    };
    serde_json::to_vec(&plan).expect("serializes")
}

pub(crate) fn blob_ref(bytes: &[u8]) -> BlobRef {
    BlobRef {
        id: BlobId::of(bytes),
        bytes: bytes.len() as u64,
    }
}

pub(crate) fn manifest_of(
    state: &CodeState,
    version: Version,
    delta: &[u8],
    snapshot: &[u8],
) -> Manifest {
    let delta = (!delta.is_empty()).then(|| DeltaRef {
        base_version: Version(version.0 - 1),
        blob: blob_ref(delta),
    });
    Manifest {
        format_version: FORMAT_VERSION,
        model: MODEL.to_owned(),
        version,
        kind: VersionKind::Fast,
        state: state.hash(),
        spec_hash: state.spec.spec_hash(),
        encoder_generation: state.encoder_generation,
        learned_from: LogOffset(10 * version.0 - 10),
        learned_through: LogOffset(10 * version.0),
        event_time_millis: 1_700_000_000_000,
        created_at: 1_700_000_001_000,
        expires_at: 1_700_000_061_000,
        previous: None,
        delta,
        snapshot: Some(blob_ref(snapshot)),
        channel: Channel::Stable,
        key_set: None,
        learned_code_bytes: state.learned_code_bytes() as u64,
        self_test: SelfTest {
            history: Vec::new(),
            now_millis: 1_700_000_001_000,
            item_ids: vec![state.items[0].item_id.clone()],
            scores: vec![0.125],
            tolerance: 1e-3,
        },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("JSON is text")
}

/// Rules of operators, one of each kind.
pub(crate) fn moderation_note() -> ModerationNote {
    let item = |id: &str| ItemId::new(id).expect("short");
    ModerationNote {
        format_version: FORMAT_VERSION,
        model: MODEL.to_owned(),
        revision: 1_700_000_000_500,
        created_at: 1_700_000_001_000,
        key_set: Some(3),
        rules: ModerationRules {
            block: vec![item("a"), item("\"b\"")],
            pin: vec![PinnedItem {
                item_id: item("c"),
                position: 2,
            }],
            points: vec![ItemPoints {
                item_ids: vec![item("d")],
                points: -2.5,
            }],
        },
    }
}
