//! The edge engine for the browser: a thin shell over `shared_model::edge`, driven by `npm/lib/host.js`.
//!
//! JSON and bytes come in, JSON and bytes go out; the script fetches, stores and keeps the time.
//! Not here: anything that the server's `replay` or the tests would need too (that is `shared_model::edge`).
//!
//! Built four times: with the feature `cpu`, the default, with `webgpu`, and with `text` for the text encoder, once for
//! SIMD128 and once for relaxed SIMD.

mod error;
mod panic;

#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "engine")]
mod wire;

#[cfg(feature = "text")]
mod text;

#[cfg(feature = "engine")]
pub use engine::Engine;
pub use panic::{on_panic, start};
#[cfg(feature = "text")]
pub use text::{Encoder, EncoderBuilder, TextEmbedder, TextReader};
