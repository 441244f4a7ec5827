//! What the Freshet server and the page must agree on, compiled for both.
//!
//! Modules in reading order: ids and events, the model spec, the integer codec (no burn in it),
//! the manifest, the burn model, the sans-IO edge engine, metrics.
//! Here is no IO, no clock, no thread and no hidden randomness: time and seeds are passed in.

pub mod event;
pub mod ids;
pub mod spec;

pub mod codec;
pub mod kernels;
pub mod manifest;
pub mod model;

pub mod edge;
pub mod metrics;
#[cfg(feature = "text")]
pub mod text;
