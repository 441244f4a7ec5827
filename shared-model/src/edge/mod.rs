//! The edge engine: what a page, the replay command, the gate and the tests all drive.
//!
//! Bytes in, requests out; no fetch, no clock, no storage.

pub mod engine;
pub mod explore;
pub mod report;
pub mod sync;
