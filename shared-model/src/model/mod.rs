//! The Ranker in burn: item vectors, causal attention over a history, item prior, heads.
//!
//! One spec runs on every burn device: flex on the server and for reference, wgpu on both sides. On the page's CPU it
//! runs on the host (`host`, over `crate::kernels`), held to burn by tests.
//! Not here: optimizers and losses (`trainer-server/train`), integer codes (`codec`).

pub mod neighbours;
pub mod parameters;
pub mod prior;
pub mod sequence;

pub mod ranker;

pub mod host;
pub mod scorer;

pub mod explain;
