//! Fault report: what a page says of a version that it could not take.
//!
//! The body of `POST /v1/models/{model}/reports`. It names the version and what failed, and the bucket that the page
//! drew; nothing of who visits or what was ranked. A page sends one per version.
//! What is left out on purpose: failures of the network and of trust, which say nothing of the version itself.

use serde::{Deserialize, Serialize};

use super::engine::EngineError;
use super::sync::EdgeError;
use crate::codec::CodecError;
use crate::ids::Version;
use crate::model::scorer::ScoreError;

/// Longest report, in bytes of JSON.
pub const REPORT_BYTES_MAX: usize = 1024;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The version computes other scores here than on the server, or none.
    SelfTest,
    /// A delta or snapshot, whole as its hash says, cannot be applied.
    Apply,
    /// What it leads to is not what the manifest names.
    Hash,
}

impl FaultCode {
    /// As it stands in a report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SelfTest => "self_test",
            Self::Apply => "apply",
            Self::Hash => "hash",
        }
    }
}

/// What a page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FaultReport {
    /// The version that it could not take.
    pub version: Version,
    /// What failed.
    pub code: FaultCode,
    /// The bucket that the page drew, below 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(max = 99)))]
    pub bucket: Option<u8>,
}

impl EdgeError {
    /// What to report of it; `None` where it says nothing of the version.
    #[must_use]
    pub fn fault(&self) -> Option<FaultCode> {
        match self {
            // An older page beside a newer server: no fault of the version.
            Self::Codec(CodecError::FormatVersion { .. }) => None,
            Self::Codec(_) | Self::InlineDelta => Some(FaultCode::Apply),
            Self::WrongState { .. } => Some(FaultCode::Hash),
            Self::Manifest(_)
            | Self::KeySet(_)
            | Self::NoKeySet
            | Self::StaleKeySet { .. }
            | Self::ClockSkew { .. }
            | Self::NoKey
            | Self::UntrustedKey { .. }
            | Self::WrongModel { .. }
            | Self::Stale { .. }
            | Self::OlderThanSeen { .. }
            | Self::OlderRules { .. }
            | Self::Equivocation { .. }
            | Self::LearnedBackward { .. }
            | Self::Inconsistent { .. }
            | Self::Unexpected { .. }
            | Self::BlobLength { .. }
            | Self::BlobHash { .. } => None,
        }
    }
}

impl EngineError {
    /// As [`EdgeError::fault`].
    #[must_use]
    pub fn fault(&self) -> Option<FaultCode> {
        match self {
            Self::Sync(error) => error.fault(),
            Self::SelfTest { .. }
            | Self::SelfTestItem { .. }
            | Self::Score(ScoreError::NotFinite { .. }) => Some(FaultCode::SelfTest),
            // A device that fails says nothing of the version.
            Self::Score(ScoreError::Device(_)) => None,
            Self::NoModel
            | Self::UnknownItem { .. }
            | Self::TooLong { .. }
            | Self::TextWidth { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlobId;

    #[test]
    fn what_is_wrong_with_a_version_is_reported_and_what_is_wrong_on_the_way_is_not() {
        let id = BlobId::default();
        let wrong = EdgeError::WrongState {
            expected: id,
            actual: id,
        };
        let damaged = EdgeError::BlobHash {
            expected: id,
            actual: id,
        };
        assert_eq!(wrong.fault(), Some(FaultCode::Hash));
        assert_eq!(damaged.fault(), None);
        assert_eq!(EngineError::NoModel.fault(), None);
    }

    #[test]
    fn a_report_is_small_json_without_unknown_fields() {
        let report = FaultReport {
            version: Version(7),
            code: FaultCode::SelfTest,
            bucket: Some(99),
        };
        let text = serde_json::to_string(&report).expect("plain values");
        assert_eq!(text, r#"{"version":7,"code":"self_test","bucket":99}"#);
        for code in [FaultCode::SelfTest, FaultCode::Apply, FaultCode::Hash] {
            assert_eq!(serde_json::json!(code), code.as_str());
        }
        assert!(text.len() < REPORT_BYTES_MAX);
        assert!(serde_json::from_str::<FaultReport>(r#"{"version":7,"code":"hash"}"#).is_ok());
        let named = r#"{"version":7,"code":"hash","user_id":"u"}"#;
        assert!(serde_json::from_str::<FaultReport>(named).is_err());
    }
}
