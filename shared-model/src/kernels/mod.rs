//! Kernels: arithmetic on plain arrays of the host, for one thread of the page's CPU.
//!
//! Everything is written over small arrays of fixed length, from which the compiler makes the vector instructions of
//! the target: SIMD128 in the browser modules, SSE or NEON in native tests. One source, so every side adds in the
//! same order. Here is no model and no burn; who uses these kernels is held to burn by parity tests
//! (`model::host`).
//! Not here: the trainer's kernels, which choose wider instructions at run time (`trainer-server`, `train::host`).

pub mod elementwise;
pub mod int8;
pub mod panels;

pub use elementwise::{Norm, exp, gelu, softmax};
pub use int8::{Form, Int8Panels, Int8Rows};
pub use panels::Panels;
