//! The edge engine for the browser: a thin shell over `shared_model::edge`, driven by `npm/lib/host.js`.
//!
//! JSON and bytes come in, JSON and bytes go out; the script fetches, stores and keeps the time.
//! Not here: anything that the server's `replay` or the tests would need too (that is `shared_model::edge`).
//!
//! Built twice: without features for the CPU module, with `webgpu` for the other one.

mod engine;
mod error;
mod panic;
mod wire;

pub use engine::Engine;
pub use panic::{on_panic, start};
