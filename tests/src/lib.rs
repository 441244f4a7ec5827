//! Harness of the whole-system tests: the real server process, real pages, simulated people.
//!
//! Tests under `tests/` claim things about Freshet as its users meet it: over HTTP, in Chromium, over crashes.
//! Nothing here sleeps for a fixed time: [`wait::until`] looks until something holds, with a deadline.
//! Not here: claims about one module, which lie beside it.

pub mod wait;

pub mod api;
pub mod root;
pub mod server;

pub mod native_page;

pub mod browser;
pub mod bundled;
pub mod network;
pub mod proxy;
pub mod site;

pub mod drawn;
pub mod people;
pub mod ranking;
pub mod scene;
pub mod signed;
pub mod tiny_encoder;

pub mod workspace;
