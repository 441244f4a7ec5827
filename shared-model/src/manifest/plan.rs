//! Update plans (how to get from one version to the newest) and announcements (there is a newer one).
//!
//! Neither is signed; both hold a signed manifest, and what follows them is checked against that.

use serde::{Deserialize, Serialize};

use super::{
    ANNOUNCEMENT_BYTES_MAX, BlobRef, INLINE_DELTA_BYTES_MAX, MANIFEST_BYTES_MAX, ManifestError,
    PLAN_BYTES_MAX, PLAN_STEPS_MAX, VersionKind, check_blob, check_len, field, parse_json,
};
use crate::ids::{LogOffset, Version};

/// What a step fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PlanStepKind {
    /// The difference to the version before.
    Delta,
    /// A whole state, after which the version before is not needed.
    Snapshot,
}

/// One blob to fetch and apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlanStep {
    /// Delta or snapshot.
    pub kind: PlanStepKind,
    /// The blob.
    pub blob: BlobRef,
    /// The version after this step.
    pub target_version: Version,
}

/// How to reach the newest version; no steps where one has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpdatePlan {
    /// Version after the last step.
    pub target_version: Version,
    /// Signed manifest of that version.
    pub manifest: String,
    /// In order.
    pub steps: Vec<PlanStep>,
    /// Bytes of all steps.
    pub total_bytes: u64,
}

/// The data of an SSE event `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Announcement {
    /// The new version.
    pub version: Version,
    /// How it came about.
    pub kind: VersionKind,
    /// Records of the event log below this are learned.
    pub learned_through: LogOffset,
    /// Signed manifest of that version.
    pub manifest: String,
    /// Base64 of the delta from the version before, where it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<String>,
}

/// Parses a plan and checks its limits and the order of its steps.
///
/// # Errors
/// Malformed or out of bounds.
pub fn parse_plan(bytes: &[u8]) -> Result<UpdatePlan, ManifestError> {
    check_len("plan", bytes.len(), PLAN_BYTES_MAX)?;
    let plan: UpdatePlan = parse_json("plan", bytes)?;
    check_len(
        "manifest of a plan",
        plan.manifest.len(),
        MANIFEST_BYTES_MAX,
    )?;
    if plan.steps.len() > PLAN_STEPS_MAX {
        return Err(field("steps", plan.steps.len(), "at most 256"));
    }
    let mut total_bytes = 0_u64;
    for step in &plan.steps {
        check_blob("steps.blob.bytes", &step.blob)?;
        total_bytes += step.blob.bytes; // at most PLAN_STEPS_MAX · BLOB_BYTES_MAX = 2^37
    }
    if total_bytes != plan.total_bytes {
        return Err(field(
            "total_bytes",
            plan.total_bytes,
            "the sum over the steps",
        ));
    }
    let is_ascending = plan
        .steps
        .windows(2)
        .all(|pair| pair[0].target_version < pair[1].target_version);
    if !is_ascending {
        return Err(field("steps", "not ascending", "ascending target versions"));
    }
    let ends_elsewhere = plan
        .steps
        .last()
        .is_some_and(|step| step.target_version != plan.target_version);
    if ends_elsewhere {
        return Err(field(
            "target_version",
            plan.target_version,
            "the target of the last step",
        ));
    }
    Ok(plan)
}

/// Parses an announcement and checks its limits.
///
/// # Errors
/// Malformed or out of bounds.
pub fn parse_announcement(bytes: &[u8]) -> Result<Announcement, ManifestError> {
    check_len("announcement", bytes.len(), ANNOUNCEMENT_BYTES_MAX)?;
    let announcement: Announcement = parse_json("announcement", bytes)?;
    check_len(
        "manifest of an announcement",
        announcement.manifest.len(),
        MANIFEST_BYTES_MAX,
    )?;
    let delta_len = announcement.delta.as_ref().map_or(0, String::len);
    check_len(
        "inline delta",
        delta_len,
        INLINE_DELTA_BYTES_MAX.div_ceil(3) * 4,
    )?;
    Ok(announcement)
}
