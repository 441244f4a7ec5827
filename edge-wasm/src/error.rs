//! Errors as they cross into the script: an `Error` with a stable `code`, and a `fault` with its `version` where the
//! server is to be told.

use js_sys::{Error, Reflect};
use shared_model::edge::engine::EngineError;
use shared_model::edge::report::FaultCode;
use shared_model::edge::sync::EdgeError;
use shared_model::ids::Version;
use wasm_bindgen::JsValue;

/// Why a call of the shell failed.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The engine refused or failed.
    #[error("{error}")]
    Engine {
        /// Why.
        error: EngineError,
        /// The version that failed, where one did.
        version: Option<Version>,
    },
    /// What the script passed is not what the call takes.
    #[error("the argument {argument} is malformed: {reason}")]
    Argument {
        /// Its name.
        argument: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The backend that was asked for cannot be started here.
    #[error("the backend {backend} cannot be started: {reason}")]
    Backend {
        /// Its name.
        backend: &'static str,
        /// What the device said.
        reason: String,
    },
    /// A text cannot be embedded.
    #[cfg(feature = "text")]
    #[error("{reason}")]
    Text {
        /// Why.
        reason: String,
    },
    /// The live version cannot be written as a snapshot.
    #[error("the live version cannot be written as a snapshot: {reason}")]
    Export {
        /// What the codec said.
        reason: String,
    },
}

impl ShellError {
    /// Stable code for the script.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine { error, .. } => error.code(),
            Self::Argument { .. } => "invalid_argument",
            Self::Backend { .. } => "backend_unavailable",
            #[cfg(feature = "text")]
            Self::Text { .. } => "text_failed",
            Self::Export { .. } => "export_failed",
        }
    }

    /// What the server is told of it, as it stands in a report; nothing where it says nothing of the version.
    #[must_use]
    pub fn fault(&self) -> Option<FaultCode> {
        match self {
            Self::Engine { error, .. } => error.fault(),
            Self::Argument { .. } | Self::Backend { .. } | Self::Export { .. } => None,
            #[cfg(feature = "text")]
            Self::Text { .. } => None,
        }
    }

    /// What failed because of a version, or on the way to it.
    pub(crate) fn of_version(error: impl Into<EngineError>, version: Option<Version>) -> Self {
        let error = error.into();
        Self::Engine { error, version }
    }

    fn version(&self) -> Option<Version> {
        match self {
            Self::Engine { version, .. } => *version,
            Self::Argument { .. } | Self::Backend { .. } | Self::Export { .. } => None,
            #[cfg(feature = "text")]
            Self::Text { .. } => None,
        }
    }

    /// What is wrong with a text or its encoder.
    #[cfg(feature = "text")]
    pub(crate) fn text(reason: impl ToString) -> Self {
        Self::Text {
            reason: reason.to_string(),
        }
    }

    /// A malformed argument.
    pub(crate) fn argument(argument: &'static str, reason: impl ToString) -> Self {
        Self::Argument {
            argument,
            reason: reason.to_string(),
        }
    }
}

impl From<EngineError> for ShellError {
    fn from(error: EngineError) -> Self {
        Self::of_version(error, None)
    }
}

impl From<EdgeError> for ShellError {
    fn from(error: EdgeError) -> Self {
        Self::of_version(error, None)
    }
}

impl From<ShellError> for JsValue {
    fn from(error: ShellError) -> Self {
        let thrown = Error::new(&error.to_string());
        // Setting a property of a new ordinary object cannot fail; the message is there in any case.
        let set = |name: &str, value: Self| drop(Reflect::set(&thrown, &name.into(), &value));
        set("code", error.code().into());
        if let (Some(fault), Some(version)) = (error.fault(), error.version()) {
            set("fault", fault.as_str().into());
            set("version", (version.0 as f64).into()); // exact below 2^53
        }
        thrown.into()
    }
}
