//! What of the things that arrive is believed, given what is known already.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::steps::verified;
use super::{Candidate, EdgeError, EdgeSync, VerifiedVersion};
use crate::codec::delta::{apply_delta_to, read_delta_header};
use crate::manifest::Manifest;

impl EdgeSync {
    /// A manifest signed by a trusted key, of this model, not contradicting what is known, not going back.
    pub(super) fn verified_manifest(
        &mut self,
        signed_manifest: &[u8],
    ) -> Result<Manifest, EdgeError> {
        if self.keys.is_empty() {
            return Err(EdgeError::NoKey);
        }
        let manifest = self.signed_by_trusted(signed_manifest)?;
        if manifest.model != self.model {
            return Err(EdgeError::WrongModel {
                expected: self.model.clone(),
                actual: manifest.model,
            });
        }
        let version_and_state =
            |known: &VerifiedVersion| (known.manifest.version, known.manifest.state);
        let known = [
            self.live.as_ref().map(version_and_state),
            self.candidate.as_ref().map(version_and_state),
            self.newest,
            self.seen,
        ];
        for (version, expected) in known.into_iter().flatten() {
            let actual = manifest.state;
            if version == manifest.version && expected != actual {
                return Err(EdgeError::Equivocation {
                    version,
                    expected,
                    actual,
                });
            }
        }
        if let Some(live) = self.live.as_ref().map(|live| &live.manifest) {
            if manifest.version < live.version {
                return Err(EdgeError::Stale {
                    live: live.version,
                    actual: manifest.version,
                });
            }
            if manifest.learned_through < live.learned_through {
                let (live, actual) = (live.learned_through, manifest.learned_through);
                return Err(EdgeError::LearnedBackward { live, actual });
            }
        }
        Ok(manifest)
    }

    /// Whether the manifest is of the live version; if it lasts longer, it replaces the one at hand.
    pub(super) fn renews_live(&mut self, manifest: &Manifest, signed_manifest: &[u8]) -> bool {
        let Some(live) = self
            .live
            .as_mut()
            .filter(|live| live.manifest.version == manifest.version)
        else {
            return false;
        };
        if manifest.expires_at > live.manifest.expires_at {
            live.manifest = manifest.clone();
            live.signed_manifest = signed_manifest.to_vec();
        }
        true
    }

    pub(super) fn hear_of(&mut self, manifest: &Manifest) {
        if self
            .newest_version()
            .is_none_or(|newest| manifest.version > newest)
        {
            self.newest = Some((manifest.version, manifest.state));
            self.num_content_failures = 0;
        }
    }

    /// `None` where the delta does not start from the live state.
    pub(super) fn applied_inline(
        &self,
        manifest: Manifest,
        signed_manifest: Vec<u8>,
        delta: &str,
    ) -> Result<Option<Candidate>, EdgeError> {
        let bytes = STANDARD.decode(delta).map_err(|_| EdgeError::InlineDelta)?; // the position is of no use
        let header = read_delta_header(&bytes)?;
        let Some(live) = self
            .live
            .as_ref()
            .filter(|live| live.manifest.state == header.base)
        else {
            return Ok(None);
        };
        if header.target_version != manifest.version {
            return Err(EdgeError::Inconsistent {
                what: "inline delta and manifest are of different versions",
            });
        }
        let state = apply_delta_to(&live.state, live.manifest.state, &bytes)?;
        verified(manifest, signed_manifest, header.target, state).map(Some)
    }
}
