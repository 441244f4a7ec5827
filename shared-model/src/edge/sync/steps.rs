//! A plan being carried out, blob by blob.

use super::{EdgeError, Live, VerifiedVersion};
use crate::codec::delta::{apply_delta_to, read_delta_header};
use crate::codec::snapshot::decode_snapshot;
use crate::codec::state::CodeState;
use crate::ids::{BlobId, Version};
use crate::manifest::{Manifest, PlanStep, PlanStepKind};

/// A plan being carried out.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) manifest: Manifest,
    pub(super) signed_manifest: Vec<u8>,
    pub(super) steps: Vec<PlanStep>,
    /// Position in `steps`, always below its length.
    pub(super) step_idx: usize,
    pub(super) is_asked: bool,
    pub(super) num_fetch_failures: u32,
    /// State after the steps so far, with its hash; before the first, the live one.
    pub(super) reached: Option<(BlobId, CodeState)>,
}

impl Steps {
    pub(super) fn current(&self) -> &PlanStep {
        &self.steps[self.step_idx] // see the field
    }

    /// The state after the current step, with its hash.
    pub(super) fn applied(
        &self,
        live: Option<&Live>,
        bytes: &[u8],
    ) -> Result<(BlobId, CodeState), EdgeError> {
        let step = self.current();
        let (expected, actual) = (step.blob.bytes, bytes.len() as u64); // widening
        if expected != actual {
            return Err(EdgeError::BlobLength { expected, actual });
        }
        let (expected, actual) = (step.blob.id, BlobId::of(bytes));
        if expected != actual {
            return Err(EdgeError::BlobHash { expected, actual });
        }
        match step.kind {
            PlanStepKind::Snapshot => {
                let (version, state) = decode_snapshot(bytes)?;
                check_step_version(step, version)?;
                Ok((state.hash(), state))
            }
            PlanStepKind::Delta => {
                let live = live.map(|live| (live.manifest.state, &live.state));
                let base = self
                    .reached
                    .as_ref()
                    .map(|(hash, state)| (*hash, state))
                    .or(live);
                let Some((base_hash, base)) = base else {
                    return Err(EdgeError::Inconsistent {
                        what: "a plan from nothing starts with a delta",
                    });
                };
                let header = read_delta_header(bytes)?;
                check_step_version(step, header.target_version)?;
                let state = apply_delta_to(base, base_hash, bytes)?;
                Ok((header.target, state))
            }
        }
    }
}

fn check_step_version(step: &PlanStep, actual: Version) -> Result<(), EdgeError> {
    if step.target_version != actual {
        return Err(EdgeError::Inconsistent {
            what: "blob and plan step are of different versions",
        });
    }
    Ok(())
}

/// Checks that a state of this hash is what the manifest says.
pub(super) fn verified(
    manifest: Manifest,
    signed_manifest: Vec<u8>,
    hash: BlobId,
    state: CodeState,
) -> Result<VerifiedVersion, EdgeError> {
    if hash != manifest.state {
        return Err(EdgeError::WrongState {
            expected: manifest.state,
            actual: hash,
        });
    }
    if state.spec.spec_hash() != manifest.spec_hash
        || state.encoder_generation != manifest.encoder_generation
    {
        return Err(EdgeError::Inconsistent {
            what: "spec or encoder generation is not the one of the manifest",
        });
    }
    Ok(VerifiedVersion {
        state,
        manifest,
        signed_manifest,
    })
}
