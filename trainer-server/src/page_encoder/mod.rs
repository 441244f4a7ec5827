//! The encoder that pages embed texts with: made for every generation that they rank with, and handed out.
//!
//! ```text
//!                    ┌─► packed as loaded, and what it has learned since ┐
//! newest version ─► generation                                           ├─► files ─► `/v1/models/{model}/text-encoder`
//!                    └─► recipe (`ladder`) ─► robustness gate ─► smaller ┘
//! ```
//! `keeper` makes what is missing, in the background; `follow` does what `publish.text_recipe` says; `packs` hands out;
//! `source` is the encoder of a generation as the server has it; `queries` embeds on the server with the same files.
//! Not here: how weights are rounded (`text_pack`), recipes and the gate (`ladder`), and what pages do with a file.

mod file;
mod follow;
pub mod keeper;
pub mod packs;
pub mod queries;
mod scene;
mod source;

use shared_model::text::TextError;

use crate::event_log::EventLogError;
use crate::ladder::LadderError;
use crate::text_pack::PackError;
use crate::text_source::TextSourceError;
use crate::trainer::TrainerError;

pub use follow::recipe_of;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Source(#[from] TextSourceError),
    #[error(transparent)]
    Encoder(#[from] TrainerError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Ladder(#[from] LadderError),
    #[error("the events to compare encoders on cannot be read: {0}")]
    Events(#[from] EventLogError),
    #[error("generation {generation:08x} of the text encoder cannot be had, only {actual:08x}")]
    OtherGeneration { generation: u32, actual: u32 },
    #[error("making the text encoder panicked, or its thread cannot be started")]
    Thread,
}
