//! Versions as a page receives them, signed with a key of the caller: for measurements without a server.

use anyhow::Context;
use burn::tensor::Device;
use ed25519_dalek::SigningKey;
use shared_model::codec::state::CodeState;
use shared_model::edge::engine::ReadyVersion;
use shared_model::ids::{BlobId, LogOffset, Version};
use shared_model::manifest::{
    BlobRef, Channel, DeltaRef, FORMAT_VERSION, Manifest, PlanStep, PlanStepKind, UpdatePlan,
    VersionKind, sign,
};
use shared_model::model::scorer::Padding;
use trainer_server::gate::make_self_test;

/// The manifest of `state` as version 1, or of version 2 where it is reached by `delta`; its self-test is burn's.
///
/// # Errors
/// The state does not score.
pub async fn manifest(
    state: &CodeState,
    delta: Option<&[u8]>,
    now_millis: i64,
) -> anyhow::Result<Manifest> {
    let version = Version(if delta.is_some() { 2 } else { 1 });
    let ready = ReadyVersion::new(state, &Device::flex(), Padding::Longest);
    let self_test = make_self_test(&ready, state, Vec::new(), now_millis).await?;
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        model: "main".to_owned(),
        channel: Channel::Stable,
        version,
        kind: VersionKind::Fast,
        state: state.hash(),
        spec_hash: state.spec.spec_hash(),
        encoder_generation: state.encoder_generation,
        learned_from: LogOffset(10 * version.0 - 10),
        learned_through: LogOffset(10 * version.0),
        event_time_millis: now_millis,
        created_at: now_millis,
        expires_at: now_millis + 1_000_000_000_000,
        previous: None,
        delta: delta.map(|bytes| DeltaRef {
            base_version: Version(1),
            blob: blob_ref(bytes),
        }),
        snapshot: None,
        key_set: None,
        learned_code_bytes: state.learned_code_bytes() as u64, // usize fits u64
        self_test,
    })
}

/// The plan that leads from version 1 to version 2 by `delta`, as JSON.
///
/// # Errors
/// The manifest does not become text.
pub fn plan(manifest: &Manifest, delta: &[u8], key: &SigningKey) -> anyhow::Result<String> {
    let blob = blob_ref(delta);
    let plan = UpdatePlan {
        target_version: Version(2),
        manifest: signed_text(manifest, key)?,
        steps: vec![PlanStep {
            kind: PlanStepKind::Delta,
            blob,
            target_version: Version(2),
        }],
        total_bytes: blob.bytes,
    };
    Ok(serde_json::to_string(&plan)?)
}

/// A signed manifest as text.
///
/// # Errors
/// It is no text.
pub fn signed_text(manifest: &Manifest, key: &SigningKey) -> anyhow::Result<String> {
    String::from_utf8(sign(manifest, key)).context("a signed manifest is JSON")
}

fn blob_ref(bytes: &[u8]) -> BlobRef {
    BlobRef {
        id: BlobId::of(bytes),
        bytes: bytes.len() as u64, // usize fits u64
    }
}
