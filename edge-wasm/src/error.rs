//! Errors as they cross into the script: an `Error` with a stable `code`, and a `fault` where the server is to be told.

use js_sys::{Error, Reflect};
use shared_model::edge::engine::EngineError;
use shared_model::edge::report::FaultCode;
use shared_model::edge::sync::EdgeError;
use wasm_bindgen::JsValue;

/// Why a call of the shell failed.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
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
            Self::Engine(error) => error.code(),
            Self::Argument { .. } => "invalid_argument",
            Self::Backend { .. } => "backend_unavailable",
            Self::Export { .. } => "export_failed",
        }
    }

    /// What the server is told of it, as it stands in a report; nothing where it says nothing of the version.
    #[must_use]
    pub fn fault(&self) -> Option<FaultCode> {
        match self {
            Self::Engine(error) => error.fault(),
            Self::Argument { .. } | Self::Backend { .. } | Self::Export { .. } => None,
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

impl From<EdgeError> for ShellError {
    fn from(error: EdgeError) -> Self {
        Self::Engine(EngineError::Sync(error))
    }
}

impl From<ShellError> for JsValue {
    fn from(error: ShellError) -> Self {
        let thrown = Error::new(&error.to_string());
        // Setting a property of a new ordinary object cannot fail; the message is there in any case.
        drop(Reflect::set(&thrown, &"code".into(), &error.code().into()));
        if let Some(fault) = error.fault() {
            drop(Reflect::set(
                &thrown,
                &"fault".into(),
                &fault.as_str().into(),
            ));
        }
        thrown.into()
    }
}
